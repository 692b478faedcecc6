#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace dq {

using Vocabulary = std::unordered_map<std::string, std::int64_t>;
using Merges = std::vector<std::pair<std::string, std::string>>;

/// Byte pair encoding of one word: its bytes, the last one marked as the end of a word, merged by the order of the merges.
class Bpe {
 public:
  /// Throws Error: a merge is of tokens that the vocabulary lacks.
  Bpe(Vocabulary vocabulary, const Merges& merges, std::int64_t unknown);

  /// Appends the tokens of a word, given as its bytes.
  void append(const std::string& word, std::vector<std::int64_t>& ids) const;

  /// The bytes of the tokens; an end of a word is a space.
  std::string text(const std::vector<std::int64_t>& ids) const;

 private:
  struct Merge {
    std::size_t rank;
    std::int64_t id;
  };

  const Merge* find(std::int64_t left, std::int64_t right) const;
  std::int64_t id_of(const std::string& token) const;

  Vocabulary vocabulary_;
  std::unordered_map<std::uint64_t, Merge> merges_;
  std::int64_t unknown_;
};

/// How a byte is written in the vocabulary: as a character that can be seen.
const std::string& written_byte(unsigned char byte);

}  // namespace dq
