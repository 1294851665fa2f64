/*
 * format/tokenizer_pattern.c - Oniguruma's patterns read by PCRE2
 *
 * tokenizer.json is written for Oniguruma in its Ruby syntax. The two libraries agree on what
 * such patterns are made of: \p{..}, \s \d and classes of them, lookaround, (?i:..), possessive
 * ? * +, and lines for ^ and $. Where they do not, splits would silently differ, so only the
 * common part is let through:
 *
 *     \s, \S        PCRE2's hold U+180E besides White_Space: written out as a class (but for \S
 *                   inside one, where that character alone then differs)
 *     \w \b \h \v   mean other characters              refused, as are \K, \1 and the rest
 *     (?i) (?m:     reach further, mean another thing   refused; (?i:..) is let through
 *     [a&&b] [a[b]] intersection and union there        refused
 *     {2}+ {2}?     possessive and lazy here            refused
 *
 * What is refused includes all that makes PCRE2 recurse, call out or look at single bytes.
 */
#define _DEFAULT_SOURCE
#define PCRE2_CODE_UNIT_WIDTH 8
#include "format/tokenizer_split.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "format/printable.h"

enum { MAX_PATTERN_NBYTES = 8192 };

const char tsr_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

#define SPACES                                                                                               \
    "\\x09-\\x0D\\x20\\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

typedef struct translation {
    const char *at; /* what is still to be read */
    char *out;
    bool in_class;
} translation;

static void copy(translation *t, size_t n)
{
    memcpy(t->out, t->at, n);
    t->out += n;
    t->at += n;
}

static void put(translation *t, const char *words)
{
    const size_t n = strlen(words);
    memcpy(t->out, words, n);
    t->out += n;
}

static tsr_status refuse(const char *what, const char *at)
{
    return tsr_fail(TSR_ERR_UNSUPPORTED, "the pattern has %s \"%s\", which is not supported", what,
                    tsr_printable(at).text);
}

static tsr_status translate_escape(translation *t)
{
    const char c = t->at[1];
    if (c == 's' || (c == 'S' && !t->in_class)) {
        put(t, t->in_class ? SPACES : c == 's' ? "[" SPACES "]" : "[^" SPACES "]");
        t->at += 2;
        return TSR_OK;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (c == 0 || (unsigned char)c >= 0x80 || (letter && strchr("SdDpPrntfxAzZ", c) == NULL))
        return refuse("the escape", t->at);
    copy(t, 2);
    if ((c == 'p' || c == 'P' || c == 'x') && *t->at == '{') {
        const size_t n = strcspn(t->at, "}");
        if (t->at[n] == 0) return refuse("an open brace", t->at);
        copy(t, n + 1);
    }
    return TSR_OK;
}

static tsr_status translate_in_class(translation *t)
{
    if (t->at[0] == '[' || strncmp(t->at, "&&", 2) == 0) return refuse("inside a class", t->at);
    if (t->at[0] == ']') t->in_class = false;
    copy(t, 1);
    return TSR_OK;
}

static tsr_status translate_group(translation *t)
{
    static const char *const known[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"};
    if (t->at[1] == '*') return refuse("the group", t->at);
    if (t->at[1] != '?') {
        copy(t, 1);
        return TSR_OK;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(t->at, known[i], strlen(known[i])) == 0) {
            copy(t, strlen(known[i]));
            return TSR_OK;
        }
    return refuse("the group", t->at);
}

static tsr_status translate_braces(translation *t)
{
    const size_t digits = strspn(t->at + 1, "0123456789");
    size_t n = 1 + digits;
    if (digits > 0 && t->at[n] == ',') n += 1 + strspn(t->at + n + 1, "0123456789");
    if (digits == 0 || t->at[n] != '}' || t->at[n + 1] == '+' || t->at[n + 1] == '?')
        return refuse("the repetition", t->at);
    copy(t, n + 1);
    return TSR_OK;
}

static tsr_status translate(translation *t)
{
    while (*t->at != 0) {
        if (*t->at == '\\') {
            TSR_TRY(translate_escape(t));
        } else if (t->in_class) {
            TSR_TRY(translate_in_class(t));
        } else if (*t->at == '(') {
            TSR_TRY(translate_group(t));
        } else if (*t->at == '{') {
            TSR_TRY(translate_braces(t));
        } else if (*t->at == '[') {
            t->in_class = true;
            copy(t, t->at[1] == '^' ? 2 : 1);
            if (*t->at == ']') return refuse("an empty class", t->at);
        } else {
            copy(t, 1);
        }
    }
    *t->out = 0;
    return TSR_OK;
}

static tsr_status compile(const char *source, bool literal, pcre2_code **out)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (context == NULL) return tsr_fail(TSR_ERR_MEMORY, "pattern: out of memory");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    const uint32_t options = literal ? PCRE2_UTF | PCRE2_LITERAL
                                     : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_AUTO_CAPTURE |
                                           PCRE2_NEVER_BACKSLASH_C;
    int code = 0;
    PCRE2_SIZE offset = 0;
    *out = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED, options, &code, &offset, context);
    pcre2_compile_context_free(context);
    if (*out == NULL) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(code, why, sizeof why);
        return tsr_fail(TSR_ERR_FORMAT, "the pattern does not compile: %s", (const char *)why);
    }
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* where it is not available, matching interprets */
    return TSR_OK;
}

tsr_status tsr_pattern_compile(const char *source, bool literal, tsr_pattern *out)
{
    const size_t n = strlen(source);
    if (n == 0) return tsr_fail(TSR_ERR_FORMAT, "the pattern is empty");
    if (n > MAX_PATTERN_NBYTES)
        return tsr_fail(TSR_ERR_UNSUPPORTED, "the pattern has %zu bytes, more than %d", n,
                        MAX_PATTERN_NBYTES);
    /* An escape of two bytes grows to at most a negated class of spaces. */
    char *translated = malloc(n * sizeof SPACES + 4);
    pcre2_code *code = NULL;
    tsr_pattern made = {.source = strdup(source), .literal = literal};
    tsr_status status = TSR_OK;
    if (translated == NULL || made.source == NULL)
        status = tsr_fail(TSR_ERR_MEMORY, "pattern: out of memory");
    else if (literal)
        memcpy(translated, source, n + 1);
    else
        status = translate(&(translation){.at = source, .out = translated});
    if (status == TSR_OK) status = compile(translated, literal, &code);
    free(translated);
    made.code = code;
    if (status == TSR_OK)
        *out = made;
    else
        free(made.source);
    return status;
}

void tsr_pattern_free(tsr_pattern *p)
{
    pcre2_code_free(p->code);
    free(p->source);
    *p = (tsr_pattern){0};
}
