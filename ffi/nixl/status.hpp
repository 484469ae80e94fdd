// How the library's answers are told to NIXL, and in words on standard error.
#pragma once

#include <tranship.h>

#include "abi.hpp"

// What NIXL is told of a call that failed. Says why in a line; `what` is what was tried.
nixl_status_t failure(const char *what, tranship_status_t status);

// The same of a transfer that did not arrive.
nixl_status_t failure(const char *what, const tranship_completion_t &end);

// A line for people: nothing in it is secret.
void complain(const char *what, const std::string &why);
