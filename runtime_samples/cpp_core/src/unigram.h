#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace dq {

/// A piece of text and the logarithm of how likely it is; its id is its place.
struct UnigramPiece {
  std::string text;
  double score = 0;
};

/// SentencePiece's unigram model: of all ways to cut a word into pieces the likeliest.
class Unigram {
 public:
  /// `unknown`: the id of what no piece covers. Throws Error: it is no id, or there are no pieces.
  Unigram(std::vector<UnigramPiece> pieces, std::int64_t unknown);

  /// Appends the ids of a word's pieces; `word` is UTF-8.
  void append(const std::string& word, std::vector<std::int64_t>& ids) const;

  const std::string& text(std::int64_t id) const;

 private:
  std::vector<UnigramPiece> pieces_;
  std::unordered_map<std::string, std::int64_t> ids_;
  std::int64_t unknown_;
  double unknown_score_ = 0;
  std::size_t longest_ = 0;  // bytes of a piece
};

}  // namespace dq
