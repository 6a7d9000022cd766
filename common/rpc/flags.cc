#include "common/rpc/flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/base/check.h"

namespace prism {
namespace {

std::string Number(double value) {
  if (value == static_cast<double>(static_cast<int64_t>(value)))
    return absl::StrCat(static_cast<int64_t>(value));
  return absl::StrCat(value);
}

// "(requests, 1 to 65536, default 64; PRISM_MAX_WAITING)"
std::string HelpText(const std::string& help, const FlagRule& rule, const std::string& default_text,
                     const std::string& variable) {
  std::vector<std::string> notes;
  if (!rule.unit.empty()) notes.push_back(rule.unit);
  const bool low = rule.min != -std::numeric_limits<double>::infinity();
  const bool high = rule.max != std::numeric_limits<double>::infinity();
  if (low && high) {
    notes.push_back(absl::StrCat(Number(rule.min), " to ", Number(rule.max)));
  } else if (low) {
    notes.push_back(absl::StrCat("at least ", Number(rule.min)));
  } else if (high) {
    notes.push_back(absl::StrCat("at most ", Number(rule.max)));
  }
  std::vector<std::string> choices = rule.choices;
  choices.erase(std::remove(choices.begin(), choices.end(), ""), choices.end());  // that is "none", as below
  if (!choices.empty()) notes.push_back(absl::StrJoin(choices, "|"));
  if (rule.required) {
    notes.push_back("required");
  } else {
    notes.push_back(absl::StrCat("default ", default_text.empty() ? "none" : default_text));
  }
  return absl::StrCat(help, " (", absl::StrJoin(notes, ", "), "; ", variable, ")");
}

template <typename T>
std::string DefaultText(const T& value) {
  return Number(static_cast<double>(value));
}

bool ParseNumber(const std::string& text, int* value) { return absl::SimpleAtoi(text, value); }
bool ParseNumber(const std::string& text, int64_t* value) { return absl::SimpleAtoi(text, value); }
bool ParseNumber(const std::string& text, uint64_t* value) { return absl::SimpleAtoi(text, value); }
bool ParseNumber(const std::string& text, double* value) { return absl::SimpleAtod(text, value); }

// What HelpText() says is not said again beside the name.
class HelpFormatter final : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_positional() ? CLI::Formatter::make_option_opts(option) : "";
  }
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    return absl::StrReplaceAll(CLI::Formatter::make_option_name(option, is_positional), {{"{false}", ""}});
  }
};

}  // namespace

struct FlagSet::Parser {
  // The root owns the application, a subcommand borrows it.
  std::unique_ptr<CLI::App> owned;
  CLI::App* app = nullptr;
  bool is_root = false;
  std::deque<std::unique_ptr<FlagSet>> subcommands;
  std::vector<std::pair<std::string, std::string>> variables;  // of the root's flags: name, variable

  // Declares a flag whose text is checked and stored by `store`, which returns what is wrong.
  void AddText(const std::string& name, const std::string& help, const FlagRule& rule,
               const std::string& default_text, std::function<std::string(const std::string&)> store) {
    PRISM_CHECK(name.rfind("--", 0) == 0);
    const std::string variable = FlagSet::VariableOf(name);
    CLI::Option* option = app->add_option_function<std::string>(
        name,
        [name, store = std::move(store)](const std::string& text) {
          const std::string wrong = store(text);
          if (!wrong.empty())
            throw CLI::ValidationError(absl::StrCat(name, " is \"", text, "\", want ", wrong));
        },
        HelpText(help, rule, default_text, variable));
    option->type_name("");
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    Finish(option, name, variable, rule);
  }

  void Finish(CLI::Option* option, const std::string& name, const std::string& variable,
              const FlagRule& rule) {
    if (rule.required) option->required();
    if (is_root) {
      variables.emplace_back(name, variable);
    } else {
      option->envname(variable);
    }
  }

  template <typename T>
  void AddNumber(const std::string& name, T* value, const std::string& help, const FlagRule& rule) {
    const auto parse = [value, min = rule.min, max = rule.max](const std::string& text) -> std::string {
      T parsed{};
      const bool number = ParseNumber(text, &parsed);
      const double wide = static_cast<double>(parsed);
      if (number && wide >= min && wide <= max) {
        *value = parsed;
        return "";
      }
      std::string wanted = std::is_integral_v<T> ? "a whole number" : "a number";
      if (min != -std::numeric_limits<double>::infinity())
        absl::StrAppend(&wanted, ", at least ", Number(min));
      if (max != std::numeric_limits<double>::infinity()) absl::StrAppend(&wanted, ", at most ", Number(max));
      return wanted;
    };
    AddText(name, help, rule, DefaultText(*value), parse);
  }
};

FlagSet::FlagSet(const std::string& program, const std::string& description)
    : parser_(std::make_unique<Parser>()) {
  parser_->owned = std::make_unique<CLI::App>(description, program);
  parser_->app = parser_->owned.get();
  parser_->is_root = true;
  parser_->app->set_config("--config", "",
                           "Read flags from this INI or TOML file; keys are the names without dashes");
  parser_->app->formatter(std::make_shared<HelpFormatter>());
  parser_->app->get_formatter()->column_width(36);
}

FlagSet::FlagSet(std::unique_ptr<Parser> parser) : parser_(std::move(parser)) {}

FlagSet::~FlagSet() = default;

std::string FlagSet::VariableOf(absl::string_view name) {
  std::string variable = "PRISM_";
  for (const char c : name.substr(2)) {
    variable += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return variable;
}

void FlagSet::Add(const std::string& name, std::string* value, const std::string& help,
                  const FlagRule& rule) {
  const std::vector<std::string> choices = rule.choices;
  parser_->AddText(name, help, rule, *value, [value, choices](const std::string& text) -> std::string {
    if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
      return absl::StrCat("one of ", absl::StrJoin(choices, ", "));
    }
    *value = text;
    return "";
  });
}

void FlagSet::Add(const std::string& name, int* value, const std::string& help, const FlagRule& rule) {
  parser_->AddNumber(name, value, help, rule);
}
void FlagSet::Add(const std::string& name, int64_t* value, const std::string& help, const FlagRule& rule) {
  parser_->AddNumber(name, value, help, rule);
}
void FlagSet::Add(const std::string& name, uint64_t* value, const std::string& help, const FlagRule& rule) {
  parser_->AddNumber(name, value, help, rule);
}
void FlagSet::Add(const std::string& name, double* value, const std::string& help, const FlagRule& rule) {
  parser_->AddNumber(name, value, help, rule);
}

void FlagSet::Add(const std::string& name, bool* value, const std::string& help, const FlagRule& rule) {
  const std::string variable = VariableOf(name);
  CLI::Option* option = parser_->app->add_flag(absl::StrCat(name, ",!--no-", name.substr(2)), *value,
                                               HelpText(help, rule, *value ? "on" : "off", variable));
  option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  parser_->Finish(option, name, variable, rule);
}

void FlagSet::Add(const std::string& name, std::vector<std::string>* value, const std::string& help,
                  const FlagRule& rule) {
  parser_->AddText(name, help, rule, absl::StrJoin(*value, ","),
                   [value](const std::string& text) -> std::string {
                     *value = absl::StrSplit(text, ',', absl::SkipWhitespace());
                     return "";
                   });
}

void FlagSet::AddPositional(const std::string& name, std::string* value, const std::string& help,
                            bool required) {
  parser_->app->add_option(name, *value, help)->required(required)->type_name("");
}

void FlagSet::AddPositional(const std::string& name, std::vector<std::string>* value, const std::string& help,
                            bool required) {
  parser_->app->add_option(name, *value, help)->required(required)->type_name("");
}

FlagSet* FlagSet::AddSubcommand(const std::string& name, const std::string& description) {
  auto parser = std::make_unique<Parser>();
  parser->app = parser_->app->add_subcommand(name, description);
  parser_->app->require_subcommand(1);
  parser_->subcommands.push_back(std::unique_ptr<FlagSet>(new FlagSet(std::move(parser))));
  return parser_->subcommands.back().get();
}

bool FlagSet::chosen() const { return parser_->app->parsed(); }

std::optional<int> FlagSet::Parse(int argc, const char* const* argv) {
  // CLI11 lets a file win over the environment. Variables therefore come in as arguments ahead of
  // the given ones, of which the last counts.
  std::vector<std::string> arguments;
  for (const auto& [name, variable] : parser_->variables) {
    const char* text = std::getenv(variable.c_str());
    if (text != nullptr && *text != '\0') arguments.push_back(absl::StrCat(name, "=", text));
  }
  for (int i = 1; i < argc; ++i) arguments.emplace_back(argv[i]);
  std::reverse(arguments.begin(), arguments.end());  // what CLI11 wants
  try {
    parser_->app->parse(arguments);
  } catch (const CLI::CallForHelp& help) {
    return parser_->app->exit(help);
  } catch (const CLI::Error& error) {
    std::cerr << parser_->app->get_name() << ": " << error.what() << "\nTry --help.\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << parser_->app->get_name() << ": " << error.what() << "\n";
    return 2;
  }
  return std::nullopt;
}

void AddServiceFlags(FlagSet* set, ServiceFlags* flags, const std::string& protocol) {
  set->Add("--host", &flags->host, absl::StrCat("The address to serve ", protocol, " on"));
  set->Add("--port", &flags->port, absl::StrCat("The port to serve ", protocol, " on; 0 takes a free one"),
           {.min = 0, .max = 65535});
  set->Add("--metrics-host", &flags->metrics_host, "The IPv4 address of /metrics, /healthz and /readyz");
  set->Add("--metrics-port", &flags->metrics_port,
           "The port of /metrics, /healthz and /readyz; 0 takes a free one", {.min = 0, .max = 65535});
  set->Add("--log-level", &flags->log_level, "The least severe lines that are logged",
           {.choices = {"debug", "info", "warning", "error"}});
  if (protocol == "gRPC") {
    set->Add("--reflection", &flags->reflection, "Offer gRPC server reflection, for grpcurl and the like");
  }
  set->Add("--drain-timeout-s", &flags->drain_timeout_s, "How long calls may go on after SIGTERM",
           {.unit = "s", .min = 0, .max = 3600});
}

}  // namespace prism
