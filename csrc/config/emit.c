/* emit.c - one scalar to one line of YAML. libyaml decides about quotes and escapes. */
#include "config/config.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef struct buffer {
    char *data;
    size_t n, room;
} buffer;

static int append(void *to, unsigned char *data, size_t n)
{
    buffer *out = to;
    if (out->room - out->n < n) {
        const size_t room = 2 * (out->n + n);
        char *bigger = realloc(out->data, room);
        if (bigger == NULL) return 0;
        out->data = bigger;
        out->room = room;
    }
    memcpy(out->data + out->n, data, n);
    out->n += n;
    return 1;
}

/* A line break of any kind, or anything below a blank: only escapes keep it on one line. */
static int needs_escapes(const unsigned char *text, size_t len)
{
    for (size_t i = 0; i < len; ++i) {
        if (text[i] < 0x20 || text[i] == 0x7F) return 1;
        if (text[i] == 0xC2 && i + 1 < len && text[i + 1] < 0xA0) return 1; /* C1, NEL */
        if (text[i] == 0xE2 && i + 2 < len && text[i + 1] == 0x80 && (text[i + 2] | 1u) == 0xA9)
            return 1; /* LS, PS */
    }
    return 0;
}

char *lgr_yaml_scalar(const char *text, size_t len, int quoted)
{
    buffer out = {0};
    yaml_emitter_t emitter;
    yaml_event_t event;
    if (len > LGR_YAML_MAX_BYTES || !yaml_emitter_initialize(&emitter)) return NULL;
    yaml_emitter_set_output(&emitter, append, &out);
    yaml_emitter_set_encoding(&emitter, YAML_UTF8_ENCODING);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_width(&emitter, -1);
    yaml_emitter_set_break(&emitter, YAML_LN_BREAK);

    const yaml_scalar_style_t style = needs_escapes((const unsigned char *)text, len)
                                          ? YAML_DOUBLE_QUOTED_SCALAR_STYLE
                                      : quoted ? YAML_SINGLE_QUOTED_SCALAR_STYLE
                                               : YAML_ANY_SCALAR_STYLE;
    /* yaml_emitter_emit takes over the event, also when it fails */
    const int ok =
        yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
        yaml_emitter_emit(&emitter, &event) &&
        yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) &&
        yaml_emitter_emit(&emitter, &event) &&
        yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)len, 1, 1,
                                     style) &&
        yaml_emitter_emit(&emitter, &event) && yaml_document_end_event_initialize(&event, 1) &&
        yaml_emitter_emit(&emitter, &event) && yaml_stream_end_event_initialize(&event) &&
        yaml_emitter_emit(&emitter, &event) && yaml_emitter_flush(&emitter) &&
        append(&out, (unsigned char *)"", 1);
    yaml_emitter_delete(&emitter);
    if (!ok) {
        free(out.data);
        return NULL;
    }
    out.data[strcspn(out.data, "\n")] =
        0; /* the scalar is the first line; an end mark may follow */
    return out.data;
}
