// What of /metrics dashboards and autoscalers depend on: names, kinds, labels and buckets, without values.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace prism {

// A line a metric, by name: "KIND NAME {LABELS}... le BOUND...", from Prometheus' text format.
inline std::string MetricShape(const std::string& text) {
  struct Family {
    std::string kind;
    std::set<std::string> labels;
    std::vector<std::string> bounds;
  };
  std::map<std::string, Family> families;
  std::istringstream lines(text);
  std::string line, name;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string hash, what;
    words >> hash >> what;
    if (hash == "#" && what == "TYPE") {
      words >> name;
      words >> families[name].kind;
    }
    if (line.empty() || line[0] == '#') continue;
    Family& family = families[name];
    const size_t open = line.find('{');
    std::string labels = open == std::string::npos ? "" : line.substr(open, line.find('}') - open + 1);
    const size_t le = labels.find("le=\"");
    if (le != std::string::npos) {
      const size_t end = labels.find('"', le + 4);
      const std::string bound = labels.substr(le + 4, end - le - 4);
      // Bounds of the first series stand for all of them.
      if (family.bounds.empty() || family.bounds.back() != "+Inf") family.bounds.push_back(bound);
      labels.erase(le > 1 ? le - 1 : le, end + 1 - (le > 1 ? le - 1 : le));
    }
    family.labels.insert(labels == "{}" ? "" : labels);
  }
  std::string shape;
  for (const auto& [each, family] : families) {
    shape += family.kind + " " + each;
    for (const std::string& labels : family.labels) shape += labels.empty() ? "" : " " + labels;
    for (size_t i = 0; i < family.bounds.size(); ++i) shape += (i == 0 ? " le " : " ") + family.bounds[i];
    shape += "\n";
  }
  return shape;
}

// What /metrics shows is what stands in the file beside the test: a name that changes breaks somebody's
// dashboard, and is changed there on purpose. With PRISM_WRITE_GOLDEN set the file is written instead.
inline void ExpectShapeOf(const std::string& metrics_text, const std::string& golden_path) {
  if (std::getenv("PRISM_WRITE_GOLDEN") != nullptr) {
    std::ofstream(golden_path) << MetricShape(metrics_text);
    return;
  }
  std::ifstream file(golden_path);
  std::stringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(MetricShape(metrics_text), golden.str()) << golden_path;
}

}  // namespace prism
