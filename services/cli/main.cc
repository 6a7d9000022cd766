// prism: a cluster on this machine, and questions to one that runs anywhere.
#include <cstdio>

#include "common/base/log.h"
#include "common/rpc/flags.h"
#include "kernels/backends/device_names.h"
#include "services/cli/ask.h"
#include "services/cli/status.h"
#include "services/cli/up.h"

namespace prism {
namespace {

constexpr int kReplicasMax = 64;

void AddUpFlags(FlagSet* set, UpOptions* o) {
  set->Add(
      "--model", &o->model,
      "The checkpoint: a folder as Hugging Face lays it out; none: the demo model that comes with Prism, "
      "models/demo of this checkout or share/prism/models/demo of this installation");
  set->Add("--host", &o->host, "The address the gateway listens on; all else stays on loopback");
  set->Add("--port", &o->port, "The gateway's port; 0 takes a free one", {.min = 0, .max = 65535});
  set->Add("--vision-encoders", &o->vision_encoders, "Vision encoders to run",
           {.min = 1, .max = kReplicasMax});
  set->Add("--decoders", &o->decoders, "Decoders to run", {.min = 1, .max = kReplicasMax});
  set->Add("--tensor-parallel-size", &o->tensor_parallel_size, "Ranks each decoder is split over: 1, 2 or 4",
           {.min = 1, .max = 4});
  set->Add("--restart", &o->restart, "Start again what dies, with backoff");
  set->Add("--log-dir", &o->log_dir, "A folder for the programs' logs, a file each; none: standard error");
  set->Add("--state-file", &o->state_file,
           "Where to write addresses and process ids as JSON while the cluster runs");
  set->Add("--log-level", &o->log_level, "The least level that is logged",
           {.choices = {"debug", "info", "warning", "error"}});
  set->Add("--start-timeout-s", &o->start_timeout_s, "How long the cluster may take to be ready",
           {.unit = "s", .min = 1, .max = 86400});
  std::vector<std::string> choices_of_device = DeviceNames();
  choices_of_device.insert(choices_of_device.begin(), "");
  set->Add("--device", &o->device, "The encoders' and decoders' --device; none: their own choice",
           {.choices = choices_of_device});
  set->Add("--load-format", &o->load_format,
           "The encoders' and decoders' --load-format; none: their own choice",
           {.choices = {"", "auto", "safetensors", "synthetic"}});
  set->Add("--synthetic-seed", &o->synthetic_seed, "The programs' --synthetic-seed");
  set->Add("--alpha", &o->alpha, "The encoders' --alpha: what becomes of transparency",
           {.choices = {"", "white", "drop"}});
  set->Add("--served-model-name", &o->served_model_name,
           "The name clients ask for; none: the router's own choice");
  set->Add("--threads", &o->threads, "Threads of each encoder and decoder; 0: their own choice",
           {.min = 0, .max = 1024});
  set->Add("--max-model-len", &o->max_model_len,
           "The decoders' longest prompt and answer together; 0: their own choice",
           {.unit = "tokens", .min = 0});
  set->Add("--max-num-seqs", &o->max_num_seqs, "Sequences a decoder runs at once; 0: its own choice",
           {.min = 0});
  set->Add("--max-num-batched-tokens", &o->max_num_batched_tokens,
           "Tokens of a decoder's step; 0: its own choice", {.unit = "tokens", .min = 0});
  set->Add("--kv-cache-bytes", &o->kv_cache_bytes, "A decoder's KV memory; 0: its own choice",
           {.unit = "bytes", .min = 0});
  set->Add("--limit-images", &o->limit_images, "Pictures a request may have; 0: the router's own choice",
           {.min = 0});
  set->Add("--redis", &o->redis, "The router's --redis: where answers are kept; none: its memory");
  set->Add("--result-cache-bytes", &o->result_cache_bytes,
           "Answers the router keeps; 0 keeps none, -1 is its own choice", {.unit = "bytes", .min = -1});
  set->Add("--queue-wait-ms", &o->queue_wait_ms,
           "Chats that would wait longer for a decoder are refused; 0: the router's own choice",
           {.unit = "ms", .min = 0});
  set->Add("--limits", &o->limits, "The router's JSON file of what each tenant may have");
  set->Add("--api-keys", &o->api_keys,
           "The gateway's JSON file of the API keys' SHA-256, one of which it then requires; none: no key is "
           "asked for");
}

}  // namespace
}  // namespace prism

int main(int argc, char** argv) {
  prism::FlagSet set("prism", "Runs a cluster on this machine, asks one about pictures, shows how it is.");
  prism::UpOptions up;
  prism::FlagSet* const up_set =
      set.AddSubcommand("up", "Runs gateway, router, vision encoders and decoders here; Ctrl-C ends them.");
  prism::AddUpFlags(up_set, &up);

  prism::AskOptions ask;
  std::vector<std::string> words;
  double temperature = -1;
  double fps = 0;
  int64_t seed = -1;
  prism::FlagSet* const ask_set =
      set.AddSubcommand("ask", "Asks about pictures and prints the answer as it comes.");
  ask_set->Add("--url", &ask.url, "The gateway");
  ask_set->Add("--api-key", &ask.api_key, "The key, where the gateway requires one");
  ask_set->Add("--max-tokens", &ask.max_tokens, "The longest answer; 0: what the context leaves",
               {.unit = "tokens", .min = 0});
  ask_set->Add("--temperature", &temperature,
               "How freely to choose words, 0 for the likeliest; -1: as the model is set",
               {.min = -1, .max = 2});
  ask_set->Add("--fps", &fps,
               "The pictures are the frames of one clip, so many a second; 0: they are pictures",
               {.min = 0, .max = 1000});
  ask_set->Add("--seed", &seed, "The same seed gives the same answer; -1: a new one each time", {.min = -1});
  ask_set->AddPositional("words", &words, "Paths of pictures, if any, and then the question", true);

  prism::StatusOptions status;
  prism::FlagSet* const status_set =
      set.AddSubcommand("status", "Shows whether a cluster is ready and what it serves.");
  status_set->Add("--url", &status.url, "The gateway");
  status_set->Add("--api-key", &status.api_key, "The key, where the gateway requires one");
  status_set->Add("--router", &status.router, "The router, as host:port, to show its replicas too");
  status_set->Add("--state-file", &status.state_file,
                  "What prism up wrote there, in place of --url and --router");

  if (const auto exit_code = set.Parse(argc, argv)) return *exit_code;
  if (up_set->chosen()) {
    prism::InitLog("prism", up.log_level);
    return prism::Up(up);
  }
  prism::InitLog("prism", "warning");
  if (ask_set->chosen()) {
    ask.question = words.back();
    words.pop_back();
    ask.pictures = words;
    if (temperature >= 0) ask.temperature = temperature;
    if (fps > 0) ask.fps = fps;
    if (seed >= 0) ask.seed = static_cast<uint64_t>(seed);
    return prism::Ask(ask);
  }
  return prism::PrintStatus(status);
}
