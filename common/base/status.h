// Status macros: the two ways an error leaves a function early.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function if `expression` is not OK.
#define PRISM_RETURN_IF_ERROR(expression)          \
  do {                                             \
    ::absl::Status prism_status_ = (expression);   \
    if (!prism_status_.ok()) return prism_status_; \
  } while (false)

#define PRISM_CONCAT_INNER_(a, b) a##b
#define PRISM_CONCAT_(a, b) PRISM_CONCAT_INNER_(a, b)

// `target = *expression`, or returns the expression's status. `target` may declare a variable.
#define PRISM_ASSIGN_OR_RETURN(target, ...) \
  PRISM_ASSIGN_OR_RETURN_INNER_(PRISM_CONCAT_(prism_statusor_, __LINE__), target, __VA_ARGS__)
#define PRISM_ASSIGN_OR_RETURN_INNER_(statusor, target, ...) \
  auto statusor = (__VA_ARGS__);                             \
  if (!statusor.ok()) return std::move(statusor).status();   \
  target = *std::move(statusor)
