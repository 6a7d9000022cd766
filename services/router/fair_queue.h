// FairQueue hands out work of several flows (tenants) so that each gets its share by weight, however
// much it asks for: start-time fair queueing (Goyal, Vin, Cheng 1996).
//
//   S = max(V, F of the flow)    when an item becomes the first of its flow
//   F of the flow = S + cost / weight,  V = S    when it is popped; the least S is popped first
//
// A flow that was idle gets no credit for it. Within a flow order is first come, first served; equal
// start tags go by arrival. An item that is removed before its turn costs its flow nothing.
//
// Bounded: a flow is forgotten once it is empty and V has passed its F, so there are never more flows
// than items that waited at the same time; the number of items is the caller's to bound.
//
// Thread safety: thread-compatible.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "common/base/check.h"

namespace prism {

template <typename T>
class FairQueue {
 public:
  using Id = uint64_t;

  // Appends to the flow; the weight counts from its next item on. REQUIRES: weight > 0, cost > 0
  Id Push(const std::string& flow_name, double weight, double cost, T value) {
    PRISM_CHECK(weight > 0 && cost > 0);
    const Id id = next_id_++;
    const auto [place, is_new] = flows_.try_emplace(flow_name);
    Flow& flow = place->second;
    if (is_new) flow.name = &place->first;
    flow.weight = weight;
    flow.items.push_back({.id = id, .cost = cost, .value = std::move(value)});
    items_.emplace(id, std::make_pair(&flow, std::prev(flow.items.end())));
    if (flow.items.size() == 1) {
      idle_.erase({flow.finish, flow.name});
      Enlist(flow);
    }
    return id;
  }

  // The value that Pop() would give; null when empty.
  T* Front() { return heads_.empty() ? nullptr : &std::get<2>(*heads_.begin())->items.front().value; }

  // REQUIRES: not empty
  T Pop() {
    PRISM_CHECK(!heads_.empty());
    const auto [start, id, flow] = *heads_.begin();
    heads_.erase(heads_.begin());
    Item item = std::move(flow->items.front());
    flow->items.pop_front();
    items_.erase(id);
    virtual_time_ = start;
    flow->finish = start + item.cost / flow->weight;
    AfterHeadLeft(*flow);
    return std::move(item.value);
  }

  // Takes an item out of the middle; nullopt for one that is gone.
  std::optional<T> Remove(Id id) {
    const auto found = items_.find(id);
    if (found == items_.end()) return std::nullopt;
    const auto [flow, place] = found->second;
    const bool was_head = place == flow->items.begin();
    if (was_head) heads_.erase({flow->start, id, flow});
    T value = std::move(place->value);
    flow->items.erase(place);
    items_.erase(found);
    if (was_head) AfterHeadLeft(*flow);
    return value;
  }

  size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  // Flows with items and flows whose past is remembered.
  size_t num_flows() const { return flows_.size(); }

 private:
  struct Item {
    Id id = 0;
    double cost = 0;
    T value;
  };
  struct Flow {
    const std::string* name = nullptr;
    double weight = 1;
    double start = 0;   // S of the first item
    double finish = 0;  // F
    std::list<Item> items;
  };

  void Enlist(Flow& flow) {
    flow.start = std::max(virtual_time_, flow.finish);
    heads_.insert({flow.start, flow.items.front().id, &flow});
  }

  void AfterHeadLeft(Flow& flow) {
    if (!flow.items.empty()) {
      Enlist(flow);
    } else {
      idle_.insert({flow.finish, flow.name});
    }
    // With nothing queued nobody's past matters.
    while (!idle_.empty() && (heads_.empty() || idle_.begin()->first <= virtual_time_)) {
      const std::string* const name = idle_.begin()->second;
      idle_.erase(idle_.begin());
      flows_.erase(flows_.find(*name));
    }
    if (heads_.empty()) virtual_time_ = 0;
  }

  Id next_id_ = 1;
  double virtual_time_ = 0;            // V
  std::map<std::string, Flow> flows_;  // addresses of flows and names stay
  std::unordered_map<Id, std::pair<Flow*, typename std::list<Item>::iterator>> items_;
  std::set<std::tuple<double, Id, Flow*>> heads_;         // by S, then arrival
  std::set<std::pair<double, const std::string*>> idle_;  // by F
};

}  // namespace prism
