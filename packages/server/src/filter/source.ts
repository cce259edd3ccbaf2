import { parse } from '@bufbuild/cel'
import { SpillwayError } from 'spillway'
import { quoted } from '../cli/errors.ts'
import { plain } from '../terminal.ts'
import type { Expr } from './tree.ts'

/** Longest expression, in UTF-16 units. */
export const maxLength = 2_048

/** The text of an expression and its syntax tree: what errors point at. */
export class Source {
  readonly tree: Expr
  readonly #text: string
  readonly #offsets: Readonly<Record<string, number>>

  /** Throws `INVALID` with the position for what is no expression. */
  constructor(text: string) {
    if (typeof text !== 'string') throw new SpillwayError('INVALID', 'The filter must be a text.')
    if (text.length > maxLength) {
      throw new SpillwayError('INVALID', `The filter must have at most ${maxLength} characters, got ${text.length}.`)
    }
    this.#text = text
    try {
      const { expr, sourceInfo } = parse(withoutReserved(text))
      this.tree = expr
      this.#offsets = sourceInfo?.positions ?? {}
    } catch (cause) {
      throw this.#notRead(cause as ParseFailure)
    }
  }

  /** What is wrong with `expr`, a part of the tree. */
  error(expr: Expr, what: string, cause?: unknown): SpillwayError {
    return this.#errorAt(this.#offsets[String(expr.id)] ?? 0, what, cause)
  }

  #notRead(cause: ParseFailure): SpillwayError {
    if (cause.location) {
      if (cause.rawMessage === 'reserved identifier') {
        return this.#errorAt(cause.location.start.offset, 'this word is reserved by CEL', cause)
      }
      const what = cause.found ? `unexpected ${shown(cause.found)}` : 'it ends too early'
      return this.#errorAt(cause.location.start.offset, what, cause)
    }
    // The parser calls itself for each bracket; what passes it is measured.
    if (/call stack/.test(cause.message)) return this.#errorAt(0, 'it nests too deep', cause)
    return this.#errorAt(Math.max(0, this.#text.indexOf('\\')), 'an escape stands for no character', cause)
  }

  #errorAt(offset: number, what: string, cause?: unknown): SpillwayError {
    // The parser counts the space before an operator to it.
    const space = /^\s*(?=\S)/.exec(this.#text.slice(offset))?.[0].length ?? 0
    const lines = this.#text.slice(0, offset + space).split(/\r\n|\r|\n/)
    const column = (lines.at(-1) as string).length + 1
    return new SpillwayError('INVALID', `The filter at line ${lines.length}, column ${column}: ${what}.`, { cause })
  }
}

/** What the parser throws. It has a location unless its own stack or an escape failed. */
interface ParseFailure {
  readonly message: string
  readonly rawMessage?: string
  readonly location?: { readonly start: { readonly offset: number } }
  readonly found?: string | null
}

/** The variable `namespace` for the parser, to which that word is reserved. Of the same length: positions stay. */
export const namespaceName = 'namespac_'

// Texts, comments and fields that hold the word stay as they are.
const namespaceOrOther = new RegExp(
  [
    String.raw`(?:[bB]?[rR]|[rR][bB])(?:"""[\s\S]*?"""|'''[\s\S]*?'''|"[^"\n]*"|'[^'\n]*')`,
    String.raw`"""(?:\\[\s\S]|[^\\])*?"""|'''(?:\\[\s\S]|[^\\])*?'''`,
    String.raw`"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'`,
    String.raw`//[^\r\n]*`,
    String.raw`\.\s*\w+`,
    String.raw`\w+`,
  ].join('|'),
  'g',
)

function withoutReserved(text: string): string {
  return text.replace(namespaceOrOther, (found) => (found === 'namespace' ? namespaceName : found))
}

/** Strangers' text in a message: it can neither flood it nor break its line. */
export function shown(text: string): string {
  return plain(quoted(text))
}
