// SPDX-License-Identifier: Apache-2.0
//
// What the broken backends have in common: the plain-directory backend that they start from, and the table in which one
// promise is broken. The directory backend itself stays as it is: a mutant replaces functions of its table by ones that
// wrap them. They are as small as the mistake they stand for, and take no more care than that needs.
//
// A file of mutants defines such functions, lists in a macro what each mutant replaces, and ends with
// MUTANT_LIBRARY(MUTANTS):
//
//     #define MUTANTS(X) X(lost_put, bad.put_chunk = put_nothing) X(...)
//
// The environment variable MUTANT names the one that the library becomes when it is loaded. Without it, it is the backend.

#ifndef MEMKV_MUTANT_H
#define MEMKV_MUTANT_H

#define _GNU_SOURCE
#define kv_store_get_vtable dir_get_vtable
#include "../backends/dir.c"
#undef kv_store_get_vtable

#include <ctype.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

typedef kv_store_v1 S;
typedef const uint8_t *In;
typedef uint8_t **Out;

static const kv_store_v1_vtable *good;
static kv_store_v1_vtable bad;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

typedef const kv_store_v1_vtable *TableGiver(void);
static const kv_store_v1_vtable *the_table(void) { return &bad; }
static TableGiver *give_table = the_table;

typedef struct { const char *name; void (*plant)(void); } Mutant;

static void plant_named(const Mutant *mutants, size_t count, const char *name) {
    good = dir_get_vtable();
    bad = *good;
    for (size_t i = 0; name != NULL && i < count; i++) {
        if (strcmp(mutants[i].name, name) == 0) mutants[i].plant();
    }
}

#define MUTANT_DEFINE(name, ...) static void plant_##name(void) { __VA_ARGS__; }
#define MUTANT_ENTRY(name, ...) { #name, plant_##name },
#define MUTANT_LIBRARY(MUTANTS) \
    MUTANTS(MUTANT_DEFINE) \
    static const Mutant mutants[] = { MUTANTS(MUTANT_ENTRY) }; \
    __attribute__((visibility("default"))) const kv_store_v1_vtable *kv_store_get_vtable(void) { \
        static bool planted; \
        if (!planted) plant_named(mutants, sizeof mutants / sizeof *mutants, getenv("MUTANT")); \
        planted = true; \
        return give_table(); \
    }

#endif
