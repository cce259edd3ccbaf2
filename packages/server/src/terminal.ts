import type { WriteStream } from 'node:tty'
import { stripVTControlCharacters } from 'node:util'

type Style = 'bold' | 'dim' | 'red' | 'yellow' | 'green' | 'cyan'

const codes: Readonly<Record<Style, string>> = {
  bold: '1',
  dim: '2',
  red: '31',
  yellow: '33',
  green: '32',
  cyan: '36',
}

/** Colours text for a stream, or leaves it as it is where nobody would see them. */
export type Paint = (style: Style, text: string) => string

/** Colours for a terminal, unless NO_COLOR asks for none. */
export function paintFor(stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv = process.env): Paint {
  const colours = stream.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb'
  return (style, text) => (colours ? `\u001b[${codes[style]}m${text}\u001b[0m` : text)
}

/** Columns of a terminal; without one, no limit. */
export function widthOf(stream: Pick<WriteStream, 'columns'> | { columns?: number }): number {
  return stream.columns || Number.POSITIVE_INFINITY
}

/**
 * Text of strangers on one line, for a terminal. What could move the cursor, change colours or turn the direction of
 * writing is shown as an escape.
 */
export function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, (found) => {
    const code = found.codePointAt(0) ?? 0
    return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`
  })
}

const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u

/** How many columns `text` takes, colours not counted. */
export function columns(text: string): number {
  let count = 0
  for (const character of stripVTControlCharacters(text)) count += wide.test(character) ? 2 : 1
  return count
}

/** As much of `text` as fits into `width` columns; what was cut is marked. `text` has no colours. */
export function cut(text: string, width: number): string {
  // No character is narrower than half a UTF-16 unit, so a short text needs no counting.
  if (text.length * 2 <= width || columns(text) <= width) return text
  let kept = ''
  let used = 0
  for (const character of text) {
    used += wide.test(character) ? 2 : 1
    if (used > width - 1) break
    kept += character
  }
  return `${kept}…`
}

const number = new Intl.NumberFormat('en')

/** A number as people read it: 1,234,567. */
export function formatted(value: number): string {
  return number.format(value)
}

/** `1 batch`, `1,234 batches`. */
export function counted(value: number, one: string, many: string): string {
  return `${formatted(value)} ${value === 1 ? one : many}`
}
