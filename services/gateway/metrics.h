// Every metric of the gateway, in the order in which a request meets them.
//
// Thread safety: any thread. Ownership: the registry outlives the struct.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"
#include "common/metrics/buckets.h"
#include "common/metrics/metrics.h"

namespace prism {

struct GatewayMetrics {
  explicit GatewayMetrics(MetricRegistry* r)
      : registry(r),
        api_keys(
            r->AddGauge("prism_gateway_api_keys", "API keys that are taken; 0 where none is asked for.")),
        api_key_files_read(ReadCounter("ok")),
        api_key_files_refused(ReadCounter("error")),
        unknown_fields(r->AddCounter("prism_unknown_field_total",
                                     "Fields of chat requests that we do not know and ignored.")),
        pictures(r->AddCounter("prism_gateway_pictures_total", "Pictures in accepted chat requests.")),
        picture_bytes(r->AddCounter("prism_gateway_picture_bytes_total", "Bytes of these pictures' files.")),
        chats_running(r->AddGauge("prism_gateway_chats_running", "Chats sent to the router and not ended.")),
        first_token(r->AddHistogram("prism_gateway_first_token_seconds",
                                    "From a chat's arrival to its first token.", kFirstTokenBuckets)),
        inter_token(r->AddHistogram("prism_gateway_inter_token_seconds", "Between two deltas of one chat.",
                                    kInterTokenBuckets)),
        aborted_by_client(AbortCounter("client")),
        aborted_by_slow_reader(AbortCounter("slow_reader")),
        aborted_by_server(AbortCounter("server")),
        aborted_by_deadline(AbortCounter("deadline")),
        aborted_by_router(AbortCounter("router")) {}

  // A request was answered. `handler` and `method` are of a fixed set.
  void Answered(const std::string& handler, const std::string& method, int http_status,
                double seconds) const {
    registry
        ->AddCounter("http_requests_total", "HTTP requests answered.",
                     {{"handler", handler}, {"method", method}, {"status", absl::StrCat(http_status)}})
        .Increment();
    registry
        ->AddHistogram("http_request_duration_seconds", "From a request's head to the end of its answer.",
                       kRequestBuckets, {{"handler", handler}})
        .Observe(seconds);
  }

  MetricRegistry* const registry;
  Gauge api_keys;
  // Contents of the file of API keys: taken, or refused, with the keys before them still in use.
  Counter api_key_files_read;
  Counter api_key_files_refused;
  Counter unknown_fields;
  Counter pictures;
  Counter picture_bytes;
  Gauge chats_running;
  Histogram first_token;
  Histogram inter_token;
  // Chats whose answer was not completed, by whose doing.
  Counter aborted_by_client;
  Counter aborted_by_slow_reader;
  Counter aborted_by_server;
  Counter aborted_by_deadline;
  Counter aborted_by_router;

 private:
  Counter ReadCounter(const std::string& result) const {
    return registry->AddCounter("prism_gateway_api_key_reads_total",
                                "New contents of the file of API keys, by whether they were taken.",
                                {{"result", result}});
  }
  Counter AbortCounter(const std::string& by) const {
    return registry->AddCounter("prism_stream_abort_total", "Chats whose answer was not completed.",
                                {{"by", by}});
  }
};

}  // namespace prism
