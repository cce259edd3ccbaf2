import assert from 'node:assert/strict'
import type { FuzzTarget } from 'spillway/testing'
import { nearest, UsageError } from '../../src/cli/errors.ts'
import { choice, duration, integer, size } from '../../src/cli/values.ts'
import { columns, cut, plain } from '../../src/terminal.ts'

const choices = ['json', 'human', 'sse'] as const
const units = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5, k: 2 ** 10, g: 2 ** 30 }

/** Values of options: a number within its limits, or a message that names the option. */
export const values: FuzzTarget = {
  name: 'option value',
  corpus: ['250', '1.5s', '10m', '64M', '1g', '3d', '0', 'json', '9007199254740991'],
  dictionary: [...Object.keys(units), '.', '.5', '00', 'e3', 'Infinity', '_'],
  run(text) {
    for (const read of [integer, duration, size]) {
      const value = unlessUsage(() => read('--x', text, 5, 1e9))
      if (value === undefined) continue
      assert.ok(Number.isSafeInteger(value) && value >= 5 && value <= 1e9)
      assert.match(text, /^[0-9]+(\.[0-9]+)?[a-zA-Z]*$/)
      assert.equal(read('--x', String(value), 5, 1e9), value)
    }
    const chosen = unlessUsage(() => choice('--x', text, choices))
    assert.ok(chosen === undefined || chosen === text)
    const found = nearest(text, choices)
    assert.ok(found === undefined || choices.includes(found as 'json'))
  },
}

function unlessUsage<Value>(work: () => Value): Value | undefined {
  try {
    return work()
  } catch (error) {
    assert.ok(error instanceof UsageError, String(error))
    assert.match(error.message, /^--x must be /)
    assert.ok(error.message.length < 300)
    assert.doesNotMatch(error.message, /[\n\r]/)
    return undefined
  }
}

/** Strangers' text on a terminal. */
export const terminal: FuzzTarget = {
  name: 'terminal text',
  corpus: ['order é 日本語 😀 text', '\u001b[31mred\u001b[0m', 'a\u202eb\u2066c'],
  dictionary: ['\u001b[2J', '\u009b', '\u202e', '\u200d', '\ud83d', '日', '\u0301'],
  run(text, random) {
    const safe = plain(text)
    assert.doesNotMatch(safe, /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u)
    const width = 1 + random.below(40)
    assert.ok(columns(cut(safe, width)) <= width)
  },
}
