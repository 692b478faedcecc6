#include "unigram.h"

#include <algorithm>
#include <limits>

#include "error.h"
#include "utf8.h"

namespace dq {
namespace {

constexpr double unknown_penalty = 10;
constexpr std::size_t nowhere = std::numeric_limits<std::size_t>::max();

/// The best way to cut the word up to a byte: its score, and the last piece.
struct Best {
  double score = 0;
  std::size_t begin = nowhere;
  std::int64_t id = 0;
};

}  // namespace

Unigram::Unigram(std::vector<UnigramPiece> pieces, std::int64_t unknown) : pieces_(std::move(pieces)), unknown_(unknown) {
  if (unknown < 0 || static_cast<std::size_t>(unknown) >= pieces_.size()) throw Error("unk_id must be a token of the vocabulary, got " + std::to_string(unknown));
  double least = pieces_[0].score;
  for (std::size_t id = 0; id < pieces_.size(); ++id) {
    ids_[pieces_[id].text] = static_cast<std::int64_t>(id);
    least = std::min(least, pieces_[id].score);
    longest_ = std::max(longest_, pieces_[id].text.size());
  }
  unknown_score_ = least - unknown_penalty;
}

void Unigram::append(const std::string& word, std::vector<std::int64_t>& ids) const {
  std::vector<Best> best(word.size() + 1);
  const auto offer = [&](std::size_t begin, std::size_t end, std::int64_t id, double score) {
    const double total = score + best[begin].score;
    if (best[end].begin == nowhere || total > best[end].score) best[end] = {total, begin, id};
  };
  for (std::size_t begin = 0; begin < word.size();) {
    const std::size_t character = std::max<std::size_t>(1, utf8_length(std::string_view(word).substr(begin)));
    bool has_single = false;
    for (std::size_t length = 1; length <= std::min(longest_, word.size() - begin); ++length) {
      const auto found = ids_.find(word.substr(begin, length));
      if (found == ids_.end()) continue;
      offer(begin, begin + length, found->second, pieces_[static_cast<std::size_t>(found->second)].score);
      has_single = has_single || length == character;
    }
    if (!has_single) offer(begin, begin + character, unknown_, unknown_score_);
    begin += character;
  }
  std::vector<std::int64_t> backwards;
  std::size_t run_end = 0;  // of unknown pieces side by side, which are one; 0: none
  const auto end_run = [&](std::size_t begin) {
    if (run_end == 0) return;
    const auto found = ids_.find(word.substr(begin, run_end - begin));
    backwards.push_back(found == ids_.end() ? unknown_ : found->second);
    run_end = 0;
  };
  for (std::size_t end = word.size(); end > 0; end = best[end].begin) {
    if (best[end].id == unknown_) {
      run_end = std::max(run_end, end);
      continue;
    }
    end_run(end);
    backwards.push_back(best[end].id);
  }
  end_run(0);
  ids.insert(ids.end(), backwards.rbegin(), backwards.rend());
}

const std::string& Unigram::text(std::int64_t id) const {
  return pieces_[static_cast<std::size_t>(id < 0 || static_cast<std::size_t>(id) >= pieces_.size() ? unknown_ : id)].text;
}

}  // namespace dq
