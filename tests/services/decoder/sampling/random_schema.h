// Random JSON Schemas of the supported keywords, for tests that let a model answer in their form.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace prism {

class RandomSchema {
 public:
  explicit RandomSchema(uint32_t seed) : random_(seed) {}

  // A whole document, with definitions that may recur.
  std::string Document();

 private:
  int Below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }
  bool Chance(int percent) { return Below(100) < percent; }
  std::string Schema(int depth);
  std::string Object(int depth);
  std::string Array(int depth);
  std::string String();
  std::string Number(bool integer);
  std::string Values();

  std::mt19937 random_;
};

}  // namespace prism
