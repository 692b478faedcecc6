#include "bpe.h"

#include <array>
#include <limits>

#include "error.h"
#include "utf8.h"

namespace dq {
namespace {

const std::string end_of_word = "</w>";

std::uint64_t key(std::int64_t left, std::int64_t right) {
  return (static_cast<std::uint64_t>(left) << 32) | static_cast<std::uint32_t>(right);
}

/// Printable characters of Latin 1 stand for themselves, the others for 256, 257, ..., in their order.
std::array<std::string, 256> make_alphabet() {
  std::array<std::string, 256> alphabet;
  std::uint32_t next = 256;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    append_utf8(alphabet[byte], printable ? byte : next++);
  }
  return alphabet;
}

}  // namespace

const std::string& written_byte(unsigned char byte) {
  static const std::array<std::string, 256> alphabet = make_alphabet();
  return alphabet[byte];
}

Bpe::Bpe(Vocabulary vocabulary, const Merges& merges, std::int64_t unknown) : vocabulary_(std::move(vocabulary)), unknown_(unknown) {
  merges_.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    std::int64_t ids[3];
    std::size_t i = 0;
    for (const std::string& token : {left, right, left + right}) {
      const auto found = vocabulary_.find(token);
      if (found == vocabulary_.end()) throw Error("merge " + std::to_string(rank) + " needs the token " + token + ", which the vocabulary lacks");
      ids[i++] = found->second;
    }
    merges_[key(ids[0], ids[1])] = {rank, ids[2]};
  }
}

const Bpe::Merge* Bpe::find(std::int64_t left, std::int64_t right) const {
  const auto found = merges_.find(key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

std::int64_t Bpe::id_of(const std::string& token) const {
  const auto found = vocabulary_.find(token);
  return found == vocabulary_.end() ? unknown_ : found->second;
}

void Bpe::append(const std::string& word, std::vector<std::int64_t>& ids) const {
  std::vector<std::int64_t> symbols;
  for (std::size_t i = 0; i < word.size(); ++i) {
    const std::string& written = written_byte(static_cast<unsigned char>(word[i]));
    symbols.push_back(id_of(i + 1 < word.size() ? written : written + end_of_word));
  }
  constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  const auto rank_at = [&](std::size_t i) {
    const Merge* merge = i + 1 < symbols.size() ? find(symbols[i], symbols[i + 1]) : nullptr;
    return merge == nullptr ? none : merge->rank;
  };
  std::vector<std::size_t> ranks;  // of each symbol with the one behind it
  for (std::size_t i = 0; i < symbols.size(); ++i) ranks.push_back(rank_at(i));
  while (true) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < ranks.size(); ++i) best = ranks[i] < ranks[best] ? i : best;
    if (ranks.empty() || ranks[best] == none) break;
    symbols[best] = find(symbols[best], symbols[best + 1])->id;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    ranks.erase(ranks.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    ranks[best] = rank_at(best);
    if (best > 0) ranks[best - 1] = rank_at(best - 1);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

std::string Bpe::text(const std::vector<std::int64_t>& ids) const {
  std::unordered_map<std::string, char> bytes;
  for (unsigned byte = 0; byte < 256; ++byte) bytes[written_byte(static_cast<unsigned char>(byte))] = static_cast<char>(byte);
  std::string result;
  for (const std::int64_t id : ids) {
    for (const auto& [token, own] : vocabulary_) {
      if (own != id) continue;
      const bool ends = token.size() > end_of_word.size() && token.compare(token.size() - end_of_word.size(), end_of_word.size(), end_of_word) == 0;
      const std::string written = ends ? token.substr(0, token.size() - end_of_word.size()) : token;
      for (std::size_t at = 0; at < written.size();) {
        const std::string character = written.substr(at, std::max<std::size_t>(1, utf8_length(std::string_view(written).substr(at))));
        const auto byte = bytes.find(character);
        result += byte == bytes.end() ? character : std::string(1, byte->second);
        at += character.size();
      }
      if (ends) result += ' ';
    }
  }
  while (!result.empty() && result.back() == ' ') result.pop_back();
  return result;
}

}  // namespace dq
