import assert from 'node:assert/strict'
import type { FuzzTarget } from 'spillway/testing'
import { parseExact } from '../../src/exact-json.ts'
import { cleanName, parseDiskStats, parseNetDev, parseProcessStat } from '../../src/host/parse.ts'
import { LineSplitter, LineTooLong } from '../../src/lines.ts'

// V8 of Node 26 takes "\u0041" for "\\" once it has parsed {"a":1,"\\":2} before {"a":1,"\u0041":2}; that of Node 20 does not.
const hasEscapedName = /\\[^"]*"\s*:/

/** JSON whose numbers are kept as they were written. */
export const exactJson: FuzzTarget = {
  name: 'exact JSON',
  corpus: ['{"a":1600000000000000001,"b":[1.50,-0,1e400,"x"],"__proto__":{"c":1.0}}', '[]', '12345678901234567890'],
  dictionary: ['1e5', '-0.0', '0.10', '"__proto__":', '99999999999999999999'],
  run(text) {
    if (hasEscapedName.test(text)) return
    const plain = unlessSyntax(() => JSON.parse(text))
    const exact = unlessSyntax(() => parseExact(text))
    assert.equal(plain === undefined, exact === undefined)
    if (exact === undefined) return
    const printed = JSON.stringify(exact)
    assert.deepEqual(JSON.parse(printed), plain)
    assert.equal(JSON.stringify(parseExact(printed)), printed)
  },
}

function unlessSyntax<Value>(work: () => Value): Value | undefined {
  try {
    return work()
  } catch (error) {
    assert.ok(error instanceof SyntaxError, String(error))
    return undefined
  }
}

const lineLimit = 20

/** Lines of bytes that come in pieces: those of the whole text, up to the first that is too long. */
export const byteLines: FuzzTarget = {
  name: 'lines of bytes',
  corpus: ['one\n\ntwo: é\nrest', 'a\r\nb\n', `${'x'.repeat(20)}\n${'y'.repeat(21)}\nz`],
  dictionary: ['\n', '\n\n', 'x'.repeat(10)],
  run(text, random) {
    const bytes = Buffer.from(text)
    const splitter = new LineSplitter(lineLimit)
    const lines: string[] = []
    let isTooLong = false
    try {
      for (let at = 0; at < bytes.length; ) {
        const end = at + random.below(12)
        for (const line of splitter.push(bytes.subarray(at, end))) lines.push(Buffer.from(line).toString('latin1'))
        at = end
      }
      const rest = splitter.rest()
      if (rest) lines.push(Buffer.from(rest).toString('latin1'))
    } catch (error) {
      assert.ok(error instanceof LineTooLong, String(error))
      isTooLong = true
    }
    const all = bytes.toString('latin1').split('\n')
    if (all.at(-1) === '') all.pop()
    const long = all.findIndex((line) => line.length > lineLimit)
    assert.equal(isTooLong, long >= 0)
    assert.deepEqual(lines, isTooLong ? all.slice(0, long) : all)
  },
}

/** What the kernel says of the host, and what users make it say by the names they choose. */
export const host: FuzzTarget = {
  name: 'host statistics',
  corpus: [
    ' 254 0 vda 91674 13575 5029570 34798 25405 80692 7320920 13833 0 8012 51009\n 259 0 nvme0n1 10 0 80 1 20 0 160 2 0 0 0\n',
    'Inter-| Receive\n eth0:1:941676764 22821 0 0 0 0 0 0 1373016 13625 0 0 0 0 0 0\n lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n',
    '4211 (a b) (c\n) S 1 4211 4211 0 -1\n',
    `7 (${'n'.repeat(254)}😀) S 1`,
  ],
  dictionary: [') (', '(', ':', '\n', ' 0', '1e9', '-5', '😀'],
  run(text) {
    const process = parseProcessStat(text)
    const names = [...parseDiskStats(text).keys(), ...parseNetDev(text).keys(), process?.name ?? '', cleanName(text)]
    for (const name of names) {
      assert.ok(name.length <= 255)
      // What else would be refused when the event is published.
      assert.doesNotMatch(name, /[\p{Cc}\p{Cs}]/u)
    }
    const counters = [...parseDiskStats(text).values(), ...parseNetDev(text).values()]
    for (const count of counters.flatMap((entry) => Object.values(entry) as number[])) {
      assert.ok(Number.isFinite(count) && count >= 0)
    }
  },
}
