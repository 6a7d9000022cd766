// FlagSet is the command line of a program: each flag is also read from a PRISM_* variable and from
// a configuration file (--config FILE, INI or TOML, keys without the dashes).
//
//   FlagSet flags("prism-router", "Takes chats and spreads them over encoders and decoders.");
//   flags.Add("--max-waiting", &options.waiting_max, "Requests that may wait",
//             {.unit = "requests", .min = 1, .max = 65536});
//   if (std::optional<int> exit_code = flags.Parse(argc, argv)) return *exit_code;
//
// The command line wins over the environment, and both over the file. --max-waiting is
// PRISM_MAX_WAITING in the environment and max-waiting in the file. --help shows each flag with its
// sentence, unit, range, default and variable.
//
// Thread safety: thread-compatible. Ownership: the values pointed at outlive the set; what they hold
// when they are added is the default.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace prism {

struct FlagRule {
  std::string unit = {};                                  // "ms", "tokens"; shown in the help
  double min = -std::numeric_limits<double>::infinity();  // of numbers, both ends allowed
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};  // of strings: the only ones allowed
  bool required = false;
};

class FlagSet {
 public:
  FlagSet(const std::string& program, const std::string& description);
  ~FlagSet();
  FlagSet(const FlagSet&) = delete;
  FlagSet& operator=(const FlagSet&) = delete;

  // `name` starts with "--". `help` is a sentence.
  void Add(const std::string& name, std::string* value, const std::string& help, const FlagRule& rule = {});
  void Add(const std::string& name, int* value, const std::string& help, const FlagRule& rule = {});
  void Add(const std::string& name, int64_t* value, const std::string& help, const FlagRule& rule = {});
  void Add(const std::string& name, uint64_t* value, const std::string& help, const FlagRule& rule = {});
  void Add(const std::string& name, double* value, const std::string& help, const FlagRule& rule = {});
  // "--name", "--no-name", "--name=true|false".
  void Add(const std::string& name, bool* value, const std::string& help, const FlagRule& rule = {});
  // Separated by commas: "--decoders a:1,b:2". Giving the flag again replaces the list.
  void Add(const std::string& name, std::vector<std::string>* value, const std::string& help,
           const FlagRule& rule = {});
  // Arguments without dashes, in order; a vector takes all that are left. `name` is for the help.
  void AddPositional(const std::string& name, std::string* value, const std::string& help, bool required);
  void AddPositional(const std::string& name, std::vector<std::string>* value, const std::string& help,
                     bool required);

  // A subcommand with flags of its own ("prism up --port 8000"). Once there is one, Parse() wants
  // exactly one of them. The set is owned by this one. Its flags have variables but no file.
  FlagSet* AddSubcommand(const std::string& name, const std::string& description);
  // After Parse() of the parent: was this subcommand the one given?
  bool chosen() const;

  // Sets the values. Returns the exit code where the program is to end now: 0 after --help
  // (printed to standard output), 2 after an error (printed to standard error, with what
  // is wrong and which flag).
  std::optional<int> Parse(int argc, const char* const* argv);

  // The variable of a flag: "--max-waiting" -> "PRISM_MAX_WAITING".
  static std::string VariableOf(absl::string_view name);

 private:
  struct Parser;
  explicit FlagSet(std::unique_ptr<Parser> parser);
  std::unique_ptr<Parser> parser_;
};

// The flags every service has.
struct ServiceFlags {
  std::string host = "127.0.0.1";
  int port = 0;
  std::string metrics_host = "127.0.0.1";
  int metrics_port = 0;
  std::string log_level = "info";
  bool reflection = false;
  int drain_timeout_s = 120;  // how long calls may go on after SIGTERM
};
// `flags` comes with its own defaults for the ports. `protocol` is what --port speaks, for the help.
void AddServiceFlags(FlagSet* set, ServiceFlags* flags, const std::string& protocol = "gRPC");

}  // namespace prism
