/* parse.c - YAML events to a flat tree. No recursion: open lists and mappings live in a stack of fixed depth, and a
 * node gets its index when it closes, so children and alias targets always come before the node that holds them. */
#include "config/config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_ANCHORS = 64, MAX_DIRECTIVES = 16, STILL_OPEN = -1 };

typedef struct anchor {
    char *name;
    ptrdiff_t node; /* STILL_OPEN until its node is complete */
} anchor;

typedef struct builder {
    lgr_yaml doc;
    lgr_yaml_node open[LGR_YAML_MAX_DEPTH];
    ptrdiff_t open_anchor[LGR_YAML_MAX_DEPTH]; /* index into anchors, or -1 */
    size_t depth;
    anchor anchors[MAX_ANCHORS];
    size_t n_anchors, n_documents;
    lgr_config_error *err;
} builder;

static int fail(lgr_config_error *err, size_t line, size_t column, const char *what)
{
    err->line = line;
    err->column = column;
    snprintf(err->what, sizeof err->what, "%s", what);
    return -1;
}

static int fail_at(builder *b, yaml_mark_t at, const char *what)
{
    return fail(b->err, at.line + 1, at.column + 1, what);
}

static char *copy_text(const char *text, size_t len)
{
    char *out = malloc(len + 1);
    if (out == NULL) return NULL;
    if (len > 0) memcpy(out, text, len);
    out[len] = 0;
    return out;
}

/* Room for one more element of `size` bytes; the new address or NULL. */
static void *grow(void *base, size_t n, size_t *room, size_t size)
{
    if (n < *room) return base;
    const size_t wanted = *room == 0 ? 8 : *room * 2;
    if (wanted > SIZE_MAX / size) return NULL;
    void *out = realloc(base, wanted * size);
    if (out != NULL) *room = wanted;
    return out;
}

static void drop(lgr_yaml_node *node)
{
    free(node->text);
    free(node->item);
}

void lgr_yaml_free(lgr_yaml *doc)
{
    for (size_t i = 0; i < doc->n; ++i) drop(&doc->node[i]);
    free(doc->node);
    *doc = (lgr_yaml){0};
}

void lgr_config_error_clear(lgr_config_error *err)
{
    free(err->key);
    err->key = NULL;
}

static int is_scalar(const lgr_yaml_node *node)
{
    return node->kind == LGR_YAML_PLAIN || node->kind == LGR_YAML_QUOTED;
}

/* Put a complete node into the innermost open list or mapping. */
static int attach(builder *b, size_t index, yaml_mark_t at)
{
    if (b->depth == 0) return 0;
    lgr_yaml_node *parent = &b->open[b->depth - 1];
    if (parent->kind == LGR_YAML_MAP && parent->n % 2 == 0 && !is_scalar(&b->doc.node[index]))
        return fail_at(b, at, "a mapping key must be a scalar");
    size_t *item = grow(parent->item, parent->n, &parent->room, sizeof *item);
    if (item == NULL) return fail_at(b, at, "out of memory");
    parent->item = item;
    parent->item[parent->n++] = index;
    return 0;
}

/* Take over a complete node; it is dropped here on failure. */
static int close_node(builder *b, lgr_yaml_node node, ptrdiff_t anchor_index, yaml_mark_t at)
{
    lgr_yaml_node *nodes = grow(b->doc.node, b->doc.n, &b->doc.room, sizeof *nodes);
    if (nodes == NULL) {
        drop(&node);
        return fail_at(b, at, "out of memory");
    }
    b->doc.node = nodes;
    const size_t index = b->doc.n++;
    nodes[index] = node;
    if (anchor_index >= 0) b->anchors[anchor_index].node = (ptrdiff_t)index;
    return attach(b, index, at);
}

/* Register an anchor (NULL: none); its index, -1 for none, -2 on failure. */
static ptrdiff_t add_anchor(builder *b, const yaml_char_t *name, yaml_mark_t at)
{
    if (name == NULL) return -1;
    if (b->n_anchors == MAX_ANCHORS) return fail_at(b, at, "more than 64 anchors"), -2;
    char *copy = copy_text((const char *)name, strlen((const char *)name));
    if (copy == NULL) return fail_at(b, at, "out of memory"), -2;
    b->anchors[b->n_anchors] = (anchor){copy, STILL_OPEN};
    return (ptrdiff_t)b->n_anchors++;
}

static int on_alias(builder *b, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    for (size_t i = b->n_anchors; i-- > 0;) {
        if (strcmp(b->anchors[i].name, name) != 0) continue;
        if (b->anchors[i].node == STILL_OPEN)
            return fail_at(b, event->start_mark, "an alias stands inside its own anchor");
        return attach(b, (size_t)b->anchors[i].node, event->start_mark);
    }
    return fail_at(b, event->start_mark, "an alias without an anchor");
}

static int on_scalar(builder *b, const yaml_event_t *event)
{
    const yaml_mark_t at = event->start_mark;
    if (event->data.scalar.tag != NULL) return fail_at(b, at, "tags (!) are not allowed");
    const ptrdiff_t index = add_anchor(b, event->data.scalar.anchor, at);
    if (index < -1) return -1;
    lgr_yaml_node node = {
        .kind =
            event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? LGR_YAML_PLAIN : LGR_YAML_QUOTED,
        .len = event->data.scalar.length,
        .line = at.line + 1,
        .column = at.column + 1,
    };
    node.text = copy_text((const char *)event->data.scalar.value, node.len);
    if (node.text == NULL) return fail_at(b, at, "out of memory");
    return close_node(b, node, index, at);
}

static int on_start(builder *b, const yaml_event_t *event)
{
    const int is_map = event->type == YAML_MAPPING_START_EVENT;
    const yaml_char_t *tag =
        is_map ? event->data.mapping_start.tag : event->data.sequence_start.tag;
    const yaml_char_t *name =
        is_map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    const yaml_mark_t at = event->start_mark;
    if (tag != NULL) return fail_at(b, at, "tags (!) are not allowed");
    if (b->depth == LGR_YAML_MAX_DEPTH) return fail_at(b, at, "nested deeper than 32 levels");
    const ptrdiff_t index = add_anchor(b, name, at);
    if (index < -1) return -1;
    b->open[b->depth] = (lgr_yaml_node){.kind = is_map ? LGR_YAML_MAP : LGR_YAML_LIST,
                                        .line = at.line + 1,
                                        .column = at.column + 1};
    b->open_anchor[b->depth++] = index;
    return 0;
}

static int compare_keys(const void *left, const void *right)
{
    const lgr_yaml_node *a = *(const lgr_yaml_node *const *)left,
                        *b = *(const lgr_yaml_node *const *)right;
    const size_t len = a->len < b->len ? a->len : b->len;
    const int order = memcmp(a->text, b->text, len);
    if (order != 0) return order;
    if (a->len != b->len) return a->len < b->len ? -1 : 1;
    if (a->line != b->line) return a->line < b->line ? -1 : 1;
    return (a->column > b->column) - (a->column < b->column);
}

static int check_duplicates(builder *b, const lgr_yaml_node *map)
{
    const size_t n = map->n / 2;
    if (n < 2) return 0;
    const lgr_yaml_node **key = malloc(n * sizeof *key);
    if (key == NULL) return fail(b->err, map->line, map->column, "out of memory");
    for (size_t i = 0; i < n; ++i) key[i] = &b->doc.node[map->item[2 * i]];
    qsort(key, n, sizeof *key, compare_keys);
    const lgr_yaml_node *again = NULL,
                        *first = NULL; /* the duplicate that comes first in the text */
    for (size_t i = 1; i < n; ++i) {
        if (key[i]->len != key[i - 1]->len ||
            memcmp(key[i]->text, key[i - 1]->text, key[i]->len) != 0)
            continue;
        if (again == NULL || key[i]->line < again->line) again = key[i], first = key[i - 1];
    }
    free(key);
    if (again == NULL) return 0;
    char what[80];
    snprintf(what, sizeof what, "duplicate key, first given in line %zu", first->line);
    b->err->key = copy_text(again->text, again->len);
    return fail(b->err, again->line, again->column, what);
}

static int on_end(builder *b)
{
    lgr_yaml_node node = b->open[--b->depth];
    const yaml_mark_t start = {.line = node.line - 1, .column = node.column - 1};
    b->open[b->depth] = (lgr_yaml_node){0};
    if (node.kind == LGR_YAML_MAP && check_duplicates(b, &node) < 0) {
        drop(&node);
        return -1;
    }
    return close_node(b, node, b->open_anchor[b->depth], start);
}

static int on_event(builder *b, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (b->n_documents++ > 0)
            return fail_at(b, event->start_mark, "more than one YAML document");
        return 0;
    case YAML_ALIAS_EVENT: return on_alias(b, event);
    case YAML_SCALAR_EVENT: return on_scalar(b, event);
    case YAML_SEQUENCE_START_EVENT:
    case YAML_MAPPING_START_EVENT: return on_start(b, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: return on_end(b);
    default: return 0;
    }
}

static void place_of(const char *text, size_t offset, size_t *line, size_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < offset; ++i) {
        if (text[i] == '\n') ++*line, *column = 1;
        else if (((unsigned char)text[i] & 0xC0u) != 0x80u) ++*column;
    }
}

static int syntax_error(const yaml_parser_t *p, const char *text, size_t len, lgr_config_error *err)
{
    char what[sizeof err->what];
    size_t line = p->problem_mark.line + 1, column = p->problem_mark.column + 1;
    const char *problem = p->problem ? p->problem : "invalid YAML";
    if (p->error == YAML_MEMORY_ERROR) return fail(err, 0, 0, "out of memory");
    if (p->error == YAML_READER_ERROR) {
        place_of(text, p->problem_offset < len ? p->problem_offset : len, &line, &column);
        snprintf(what, sizeof what, "%s (the text must be UTF-8)", problem);
    } else {
        snprintf(what, sizeof what, "%s%s%s", problem, p->context ? " " : "",
                 p->context ? p->context : "");
    }
    return fail(err, line, column, what);
}

/* What libyaml would accept, or take quadratic time for. */
static int check_text(const char *text, size_t len, lgr_config_error *err)
{
    const unsigned char *byte = (const unsigned char *)text;
    if (len > LGR_YAML_MAX_BYTES)
        return fail(err, 0, 0, "larger than 1 MiB: this is no configuration");
    if (len >= 3 && byte[0] == 0xEF && byte[1] == 0xBB && byte[2] == 0xBF)
        return fail(err, 1, 1, "starts with a byte order mark: save it as UTF-8 without BOM");
    if (len >= 2 && ((byte[0] == 0xFF && byte[1] == 0xFE) || (byte[0] == 0xFE && byte[1] == 0xFF)))
        return fail(err, 1, 1, "is UTF-16: save it as UTF-8");
    size_t n_directives = 0, line = 1;
    for (size_t i = 0; i < len; ++i) {
        if (text[i] == '%' && (i == 0 || text[i - 1] == '\n') && ++n_directives > MAX_DIRECTIVES)
            return fail(err, line, 1, "too many YAML directives (%)");
        line += text[i] == '\n';
    }
    return 0;
}

int lgr_yaml_parse(const char *text, size_t len, lgr_yaml *out, lgr_config_error *err)
{
    *out = (lgr_yaml){0};
    *err = (lgr_config_error){0};
    if (check_text(text, len, err) < 0) return -1;

    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return fail(err, 0, 0, "out of memory");
    builder b = {.err = err};
    int rc = 0, done = 0;
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    while (rc == 0 && !done) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            rc = syntax_error(&parser, text, len, err);
            break;
        }
        done = event.type == YAML_STREAM_END_EVENT;
        rc = on_event(&b, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    if (rc == 0 && b.doc.n == 0)
        rc = close_node(&b, (lgr_yaml_node){.kind = LGR_YAML_NULL, .line = 1, .column = 1}, -1,
                        (yaml_mark_t){0});
    while (b.depth > 0) drop(&b.open[--b.depth]);
    for (size_t i = 0; i < b.n_anchors; ++i) free(b.anchors[i].name);
    if (rc < 0) lgr_yaml_free(&b.doc);
    *out = b.doc;
    return rc;
}
