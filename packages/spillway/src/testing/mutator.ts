import type { Random } from './random.ts'

/** What parsers stumble over wherever they are written. */
const hostile: readonly string[] = [
  '\0',
  '\n',
  '\r',
  '\r\n',
  '\t',
  ' ',
  '\u000b',
  '\u0085',
  '\u007f',
  '\u00a0',
  '\u2028',
  '\ufeff',
  '\ufffd',
  '\ud800',
  '\udc00',
  '😀',
  'é',
  '"',
  "'",
  '\\',
  '\\u0000',
  '\\ud800',
  '%',
  '%00',
  '%ff',
  '%e2%80%a8',
  '+',
  '&',
  '=',
  ':',
  ',',
  '*',
  '{',
  '}',
  '[',
  ']',
  '(',
  ')',
  '-1',
  '0',
  '1e9',
  '0x10',
  '9007199254740992',
  '18446744073709551616',
  'null',
  'true',
  'NaN',
  '__proto__',
  'constructor',
  'toString',
]

/** Longest input, in UTF-16 units, unless the corpus has longer ones. */
const maxLength = 4_096

/** Makes inputs of a parser from ones that it knows, such that a seed repeats them. */
export class Mutator {
  readonly #random: Random
  readonly #corpus: readonly string[]
  readonly #pieces: readonly string[]

  constructor(random: Random, corpus: readonly string[], dictionary: readonly string[]) {
    this.#random = random
    this.#corpus = corpus
    // As often a word of the language as one that is hostile to all.
    this.#pieces = dictionary.length === 0 ? hostile : [...repeated(dictionary, hostile.length), ...hostile]
  }

  /** An input: one of the corpus with none to many changes, two as a rule. */
  next(): string {
    let text = this.#random.pick(this.#corpus)
    if (this.#random.oneIn(20)) return text
    do text = this.#change(text)
    while (this.#random.oneIn(2))
    return text.length > maxLength ? text.slice(0, maxLength) : text
  }

  #change(text: string): string {
    const random = this.#random
    const start = random.below(text.length + 1)
    const end = Math.min(text.length, start + 1 + random.below(random.oneIn(4) ? text.length + 1 : 4))
    const before = text.slice(0, start)
    switch (random.below(10)) {
      case 0:
        return before + text.slice(end)
      case 1:
        return before
      case 2:
        return before + text.slice(start, end).repeat(1 + random.below(8)) + text.slice(end)
      case 3:
        return before + String.fromCharCode(random.below(random.oneIn(4) ? 0x10000 : 0x100)) + text.slice(end)
      case 4: {
        const other = random.pick(this.#corpus)
        return before + other.slice(random.below(other.length + 1))
      }
      case 5:
      case 6:
        return this.#replaceString(text, start)
      case 7:
        return before + random.pick(this.#pieces) + text.slice(end)
      default:
        return before + random.pick(this.#pieces) + text.slice(start)
    }
  }

  /** Another text between the first two quotation marks from `start` on, so that JSON stays JSON. */
  #replaceString(text: string, start: number): string {
    const from = text.indexOf('"', start)
    const to = text.indexOf('"', from + 1)
    if (from < 0 || to < 0) return text
    return text.slice(0, from) + JSON.stringify(this.#random.pick(this.#pieces)) + text.slice(to + 1)
  }
}

function repeated(pieces: readonly string[], least: number): string[] {
  return Array.from({ length: Math.ceil(least / pieces.length) }, () => pieces).flat()
}
