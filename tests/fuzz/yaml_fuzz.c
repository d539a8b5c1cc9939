/* yaml_fuzz.c - any bytes through the YAML parser: no fault, and every scalar survives being written and read again.
 * With clang and -fsanitize=fuzzer this is libFuzzer's target; without, main() below mutates the files of a folder. */
#include "config/config.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void written_and_read(const char *text, size_t len)
{
    lgr_yaml again = {0};
    lgr_config_error err = {0};
    char *line = lgr_yaml_scalar(text, len, 0);
    if (line == NULL) abort(); /* the parser gives UTF-8 only */
    if (lgr_yaml_parse(line, strlen(line), &again, &err) != 0) {
        if (strlen(line) <= LGR_YAML_MAX_BYTES) abort();
    } else if (again.n == 0 || again.node[0].kind > LGR_YAML_QUOTED) abort();
    else if (again.node[0].kind != LGR_YAML_NULL &&
             (again.node[0].len != len || memcmp(again.node[0].text, text, len) != 0))
        abort();
    lgr_yaml_free(&again);
    lgr_config_error_clear(&err);
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lgr_yaml doc = {0};
    lgr_config_error err = {0};
    if (lgr_yaml_parse((const char *)data, size, &doc, &err) == 0) {
        for (size_t i = 0; i < doc.n; ++i) {
            const lgr_yaml_node *node = &doc.node[i];
            for (size_t k = 0; k < node->n; ++k)
                if (node->item[k] >= doc.n) abort();
            if (node->kind == LGR_YAML_PLAIN || node->kind == LGR_YAML_QUOTED)
                written_and_read(node->text, node->len);
        }
        lgr_yaml_free(&doc);
    } else if (err.what[0] == 0) abort(); /* a refusal says why */
    lgr_config_error_clear(&err);
    return 0;
}

#ifdef LGR_FUZZ_MAIN
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 16, FILES = 4096 };
static uint8_t *seed[FILES], now[ROOM];
static size_t size_of[FILES], n_seeds, now_size;
static uint64_t state = 88172645463325252u;
static const char *kept = "found.yaml";

static uint32_t bits(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

/* Any end but a return leaves the bytes that led to it. */
static void keep(void)
{
    FILE *file = fopen(kept, "wb");
    if (file != NULL) {
        fwrite(now, 1, now_size, file);
        fclose(file);
    }
}
static void on_signal(int number)
{
    keep();
    signal(number, SIG_DFL);
    raise(number);
}
void __asan_on_error(void);
void __asan_on_error(void) { keep(); }

static void mutate(void)
{
    static const char *const pieces[] = {"\n",
                                         "  ",
                                         ": ",
                                         "- ",
                                         "&a ",
                                         "*a",
                                         "!!str ",
                                         "{",
                                         "}",
                                         "[",
                                         "]",
                                         "'",
                                         "\"",
                                         "|\n",
                                         ">-\n",
                                         "\\u",
                                         "\xef\xbb\xbf",
                                         "\xe4\xb8\xad",
                                         "? ",
                                         "#",
                                         "---\n",
                                         "%YAML 1.2\n"};
    const size_t from = bits() % n_seeds;
    now_size = size_of[from];
    memcpy(now, seed[from], now_size);
    for (int n = 1 + (int)(bits() % 6); n > 0; --n) {
        const size_t at = now_size ? bits() % now_size : 0, most = ROOM - now_size;
        const char *piece = pieces[bits() % (sizeof pieces / sizeof *pieces)];
        size_t len = strlen(piece);
        switch (bits() % 5) {
        case 0:
            if (now_size) now[at] = (uint8_t)bits();
            break;
        case 1:
            if (now_size) now[at] ^= (uint8_t)(1u << bits() % 8);
            break;
        case 2: /* insert a piece of YAML */
            if (len > most) break;
            memmove(now + at + len, now + at, now_size - at);
            memcpy(now + at, piece, len);
            now_size += len;
            break;
        case 3: /* repeat a part, nested documents grow that way */
            len = now_size - at < 64 ? now_size - at : bits() % 64;
            if (len > most) break;
            memmove(now + at + len, now + at, now_size - at);
            now_size += len;
            break;
        default: /* drop a part */
            len = now_size - at < 16 ? now_size - at : bits() % 16;
            memmove(now + at, now + at + len, now_size - at - len);
            now_size -= len;
        }
    }
}

/* yaml_fuzz SECONDS FOUND FILE...: 0 seconds run the files alone. */
int main(int argc, char **argv)
{
    if (argc < 4) return fprintf(stderr, "yaml_fuzz SECONDS FOUND FILE...\n"), 2;
    const time_t end = time(NULL) + atoi(argv[1]);
    kept = argv[2];
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    signal(SIGALRM, on_signal);
    for (int i = 3; i < argc && n_seeds < FILES; ++i) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) return perror(argv[i]), 2;
        now_size = fread(now, 1, ROOM, file);
        fclose(file);
        seed[n_seeds] = malloc(now_size + 1);
        if (seed[n_seeds] == NULL) return 2;
        memcpy(seed[n_seeds], now, now_size);
        size_of[n_seeds++] = now_size;
        LLVMFuzzerTestOneInput(now, now_size);
    }
    state += (uint64_t)time(NULL);
    long runs = 0;
    for (; time(NULL) < end; ++runs) {
        mutate();
        alarm(10); /* a hang */
        LLVMFuzzerTestOneInput(now, now_size);
    }
    printf("yaml: %zu files, %ld mutated ones: no fault\n", n_seeds, runs);
    return 0;
}
#endif
