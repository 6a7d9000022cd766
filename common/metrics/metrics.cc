#include "common/metrics/metrics.h"

#include <prometheus/check_names.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "common/base/check.h"

namespace prism {
namespace {

prometheus::Labels ToLabels(const MetricLabels& labels) {
  prometheus::Labels out;
  for (const auto& [key, value] : labels) out[key] = value;
  return out;
}

}  // namespace

struct MetricRegistry::Families {
  prometheus::Registry registry;
};

void Counter::Increment(double amount) {
  if (counter_ != nullptr) counter_->Increment(amount);
}
double Counter::value() const { return counter_ == nullptr ? 0 : counter_->Value(); }

void Gauge::Set(double value) {
  if (gauge_ != nullptr) gauge_->Set(value);
}
void Gauge::Add(double amount) {
  if (gauge_ != nullptr) gauge_->Increment(amount);
}
double Gauge::value() const { return gauge_ == nullptr ? 0 : gauge_->Value(); }

void Histogram::Observe(double value) {
  if (histogram_ != nullptr) histogram_->Observe(value);
}

MetricRegistry::MetricRegistry() : families_(std::make_unique<Families>()) {}
MetricRegistry::~MetricRegistry() = default;

Counter MetricRegistry::AddCounter(const std::string& name, const std::string& help,
                                   const MetricLabels& labels) {
  PRISM_CHECK(prometheus::CheckMetricName(name));
  return Counter(
      &prometheus::BuildCounter().Name(name).Help(help).Register(families_->registry).Add(ToLabels(labels)));
}

Gauge MetricRegistry::AddGauge(const std::string& name, const std::string& help, const MetricLabels& labels) {
  PRISM_CHECK(prometheus::CheckMetricName(name));
  return Gauge(
      &prometheus::BuildGauge().Name(name).Help(help).Register(families_->registry).Add(ToLabels(labels)));
}

Histogram MetricRegistry::AddHistogram(const std::string& name, const std::string& help,
                                       absl::Span<const double> buckets, const MetricLabels& labels) {
  PRISM_CHECK(prometheus::CheckMetricName(name));
  return Histogram(
      &prometheus::BuildHistogram()
           .Name(name)
           .Help(help)
           .Register(families_->registry)
           .Add(ToLabels(labels), prometheus::Histogram::BucketBoundaries(buckets.begin(), buckets.end())));
}

std::string MetricRegistry::Text() const {
  return prometheus::TextSerializer().prometheus::Serializer::Serialize(families_->registry.Collect());
}

}  // namespace prism
