// Text to measure a tokenizer with: made from a fixed seed, of thousands of distinct words whose
// frequencies fall as in real text, so that no cache of pieces makes it trivial.
#pragma once

#include <cstdint>
#include <string>

namespace prism {

// Sentences of words made of stems and endings, with names, numbers and punctuation.
std::string EnglishCorpus(size_t bytes, uint32_t seed);
// Functions in the manner of C++ and Python: indentation, identifiers of several words, literals.
std::string CodeCorpus(size_t bytes, uint32_t seed);
// Chinese sentences without spaces. With `punctuation` there is a mark every 6 to 30 characters; without,
// the whole text is one run of letters.
std::string ChineseCorpus(size_t bytes, bool punctuation, uint32_t seed);

}  // namespace prism
