// GrammarSpec: what an answer must look like, as a request says it; CompileGrammar() makes its grammar.
//
// Thread safety: plain values and a pure function.
#pragma once

#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/grammar/automaton.h"

namespace prism {

inline constexpr size_t kGrammarChoicesMax = 256;
inline constexpr size_t kGrammarChoiceBytesMax = 1024;
inline constexpr size_t kGrammarToolsMax = 128;
inline constexpr size_t kGrammarToolNameBytesMax = 64;

// Added tokens that the grammars name.
inline constexpr char kToolCallBegin[] = "<tool_call>";
inline constexpr char kToolCallEnd[] = "</tool_call>";
inline constexpr char kReasoningEnd[] = "</think>";

struct GrammarTool {
  std::string name;             // letters, digits, '_', '-', '.'
  std::string parameters_json;  // a JSON Schema; the arguments are objects. Empty: no parameters
  // A schema that is not supported is refused; else, where calls are the model's choice, the arguments are
  // then any object.
  bool strict = false;
};

struct GrammarSpec {
  enum class Kind { kJsonObject, kJsonSchema, kRegex, kChoice, kToolCalls };
  Kind kind = Kind::kJsonObject;
  std::string text;                  // of kJsonSchema and kRegex
  std::vector<std::string> choices;  // of kChoice: the answer is one of them
  // Of kToolCalls. A call is, as Qwen3 writes it,
  //   <tool_call>\n{"name": NAME, "arguments": ARGUMENTS}\n</tool_call>
  std::vector<GrammarTool> tools;
  bool text_first = false;  // text may come first, or alone; else the answer is calls
  bool parallel = false;    // several calls may follow each other, a newline between
  // Free text comes first, up to the marker kReasoningEnd.
  bool after_reasoning = false;

  // Equal for specs of one language.
  std::string Key() const;
};

// InvalidArgument: what cannot be enforced, of a schema with its JSON pointer in front, of a tool behind
// "tools.N: "; ResourceExhausted: a limit of these headers; Cancelled once `cancelled` is true (it may be
// null). Work and memory are bounded by those limits alone, so that all machines agree.
absl::StatusOr<CompiledGrammar> CompileGrammar(const GrammarSpec& spec,
                                               const std::atomic<bool>* cancelled = nullptr);

}  // namespace prism
