import { quoted, UsageError } from './errors.ts'

/** A whole number from `least` to `most`. Throws `UsageError` that names the option. */
export function integer(option: string, text: string, least: number, most: number): number {
  const value = /^[0-9]+$/.test(text) ? Number(text) : Number.NaN
  return within(option, text, value, least, most, `an integer from ${least} to ${most}`)
}

const milliseconds = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Milliseconds, written plain or as `500ms`, `10s`, `5m`, `2h`, `3d`. */
export function duration(option: string, text: string, least: number, most: number): number {
  const value = scaled(text, milliseconds)
  const expected = `milliseconds from ${least} to ${most}, or a duration such as 10s, 5m, 2h or 3d within that`
  return within(option, text, value, least, most, expected)
}

const bytes = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }

/** Bytes, written plain or in powers of 1024 as `512k`, `64m`, `1g`. */
export function size(option: string, text: string, least: number, most: number): number {
  const value = scaled(text.toLowerCase(), bytes)
  return within(option, text, value, least, most, `bytes from ${least} to ${most}, or a size such as 512k, 64m or 1g`)
}

/** One of `choices`. */
export function choice<const T extends string>(option: string, text: string, choices: readonly T[]): T {
  const found = choices.find((value) => value === text)
  if (found === undefined) throw new UsageError(`${option} must be ${choices.join(' or ')}, got ${quoted(text)}.`)
  return found
}

function scaled(text: string, units: Readonly<Record<string, number>>): number {
  const [, number = '', unit = ''] = /^([0-9]+(?:\.[0-9]+)?)([a-z]*)$/.exec(text) ?? []
  if (number === '') return Number.NaN
  if (unit === '') return Number(number)
  return Object.hasOwn(units, unit) ? Math.round(Number(number) * (units[unit] ?? 0)) : Number.NaN
}

function within(option: string, text: string, value: number, least: number, most: number, expected: string): number {
  if (Number.isSafeInteger(value) && value >= least && value <= most) return value
  throw new UsageError(`${option} must be ${expected}; got ${quoted(text)}.`)
}
