// Counters, gauges and histograms of one process, over prometheus-cpp.
//
// A service declares its metrics as a struct of the handles below, filled from a registry that is
// passed in; nothing is global, so two services in one test do not share numbers:
//
//   struct RouterMetrics {
//     explicit RouterMetrics(MetricRegistry* registry)
//         : requests(registry->AddCounter("prism_router_requests_total", "Chats accepted.")) {}
//     Counter requests;
//   };
//
// Thread safety: all methods may be called from any thread.
// Ownership: a handle is a copyable pointer into its registry, which must outlive it. A
// default-constructed handle takes values and drops them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace prism {

// Only grows.
class Counter {
 public:
  Counter() = default;
  // REQUIRES: amount >= 0
  void Increment(double amount = 1);
  double value() const;

 private:
  friend class MetricRegistry;
  explicit Counter(prometheus::Counter* counter) : counter_(counter) {}
  prometheus::Counter* counter_ = nullptr;
};

// Goes up and down.
class Gauge {
 public:
  Gauge() = default;
  void Set(double value);
  void Add(double amount);
  double value() const;

 private:
  friend class MetricRegistry;
  explicit Gauge(prometheus::Gauge* gauge) : gauge_(gauge) {}
  prometheus::Gauge* gauge_ = nullptr;
};

// Counts values in buckets. One Observe costs a few hundred nanoseconds when threads contend.
class Histogram {
 public:
  Histogram() = default;
  void Observe(double value);

 private:
  friend class MetricRegistry;
  explicit Histogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  prometheus::Histogram* histogram_ = nullptr;
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

class MetricRegistry {
 public:
  MetricRegistry();
  ~MetricRegistry();
  MetricRegistry(const MetricRegistry&) = delete;
  MetricRegistry& operator=(const MetricRegistry&) = delete;

  // Asking again with the same name and labels gives the same metric. Names end in their unit, a
  // counter's in _total. No label ever carries a user, a request id, a URL or raw error text.
  // REQUIRES: a valid Prometheus name, not in use for another kind.
  Counter AddCounter(const std::string& name, const std::string& help, const MetricLabels& labels = {});
  Gauge AddGauge(const std::string& name, const std::string& help, const MetricLabels& labels = {});
  // `buckets`: ascending upper bounds, without infinity; see buckets.h.
  Histogram AddHistogram(const std::string& name, const std::string& help, absl::Span<const double> buckets,
                         const MetricLabels& labels = {});

  // Everything in Prometheus' text format 0.0.4.
  std::string Text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace prism
