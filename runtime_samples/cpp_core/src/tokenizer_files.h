#pragma once

#include <string>
#include <vector>

#include "bpe.h"
#include "json.h"
#include "tokenizer.h"

namespace dq {

/// The added tokens that a tokenizer.json lists. Throws Error: one takes white space or word limits into account.
std::vector<AddedToken> read_added_tokens(const json::Value& tokenizer);

/// Tokens by their ids. Throws Error: it is no object of integers, or holds an id beyond 32 bits.
Vocabulary read_vocabulary(const json::Value& vocabulary);

/// The merges of a tokenizer.json: each a pair, or two tokens with a space between. Throws Error.
Merges read_merges(const json::Value& merges);

/// Throws Error, which names the key, unless it is the text.
void expect_text(const json::Value& object, const char* key, const std::string& wanted);

}  // namespace dq
