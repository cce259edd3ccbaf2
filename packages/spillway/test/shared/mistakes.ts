import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Parts, RingScenario } from './scenarios.ts'

/** A mistake, as changes to the compiled production code, and where it shows. */
export interface Mistake {
  readonly name: string
  readonly changes: readonly { readonly file: string; readonly from: string; readonly to: string }[]
  readonly scenario?: Partial<RingScenario>
  /** It shows only where processors do more than interleave. */
  readonly weak?: boolean
}

const change = (file: string, from: string, to: string) => ({ file, from, to })

const validate = 'if (this.#isGone(position, memory.add(cell.intent, 0)))'
const copy = 'memory.copyOut(layout.data + offset, bytes);'
const claim = 'memory.add(cell.intent, last - this.#claimed);'
const store = 'memory.store(cell.tail, this.#tail);'
const isNotified = 'if (isAwaited !== 0 || memory.load(cell.wait) !== 0)'
const notify = 'memory.notify(cell.tail);'
const clear = 'if (isAwaited !== 0) memory.store(cell.wait, 0);'
const newEpoch = 'memory.store(cell.epoch, spanOf(last));'

export const mistakes: readonly Mistake[] = [
  { name: 'validation left out', changes: [change('span', validate, 'if (false)')] },
  {
    name: 'validated before the copy',
    changes: [
      change('span', validate, 'if (isGone)'),
      change('span', copy, `const isGone = this.#isGone(position, memory.add(cell.intent, 0)); ${copy}`),
    ],
  },
  {
    name: 'validated one page too late',
    changes: [
      change(
        'span',
        'Math.floor(position / layout.page) >= layout.pages',
        'Math.floor(position / layout.page) > layout.pages',
      ),
    ],
  },
  {
    name: 'validated by a load',
    changes: [change('span', validate, 'if (this.#isGone(position, memory.load(cell.intent)))')],
    weak: true,
  },
  {
    name: 'entry of the table not validated',
    changes: [change('reader', 'Math.min(low, least) >= layout.pages', 'Math.min(low, least) < 0')],
    scenario: { readers: ['oldest'] },
  },
  {
    name: 'claimed after the write',
    changes: [
      change('writer', 'this.#claim(size, next, index);', ''),
      change('writer', 'this.#seq = next;', 'this.#claim(size, next, index); this.#seq = next;'),
    ],
  },
  {
    name: 'claimed too short',
    changes: [change('writer', '(this.#offset + size - 1)', 'this.#offset')],
    // The last record runs into the page that the reader stands in.
    scenario: { origin: 1, records: [8, 24, 8, 24, 8, 24] },
  },
  {
    name: 'claimed by a store',
    changes: [change('writer', claim, 'memory.store(cell.intent, last | 0);')],
    weak: true,
  },
  {
    name: 'table written before the claim',
    changes: [
      change('writer', claim, ''),
      change(
        'writer',
        'if (last > this.#filled)',
        'if (last > this.#filled) memory.add(cell.intent, last - this.#filled); if (last > this.#filled)',
      ),
    ],
    scenario: { readers: ['oldest'] },
  },
  {
    name: 'entry that points before its page',
    changes: [change('writer', '(this.#tail + size / 8) | 0, seq, index', 'this.#tail, this.#seq, this.#index')],
    // No page but the first begins with a record.
    scenario: { records: [24, 24, 24, 24, 24, 24] },
  },
  {
    name: 'loss counted by one too many',
    changes: [
      change('writer', '(this.#tail + size / 8) | 0, seq, index', '(this.#tail + size / 8) | 0, this.#seq, index'),
    ],
  },
  {
    name: 'tail stored before the payload',
    changes: [
      change(
        'writer',
        'memory.put(at >>> 2, length',
        'memory.store(cell.tail, (this.#tail + size / 8) | 0); memory.put(at >>> 2, length',
      ),
    ],
  },
  {
    name: 'notified before the store',
    changes: [
      change('writer', store, ''),
      change('writer', `${isNotified} ${notify}`, `${isNotified} ${notify} ${store}`),
    ],
  },
  {
    name: 'flag cleared after the store',
    changes: [change('writer', clear, ''), change('writer', store, `${store} ${clear}`)],
    // It takes four preemptions: the fewer steps, the sooner they come in that order.
    scenario: { records: [8, 8] },
  },
  {
    name: 'flag cleared after the notification',
    changes: [
      change('writer', clear, ''),
      change('writer', `${isNotified} ${notify}`, `${isNotified} { ${notify} memory.store(cell.wait, 0); }`),
    ],
  },
  {
    name: 'flag not set',
    changes: [change('wait', 'memory.store(cell.wait, 1); return memory.wait(', 'return memory.wait(')],
  },
  {
    name: 'waits for a later value',
    changes: [change('wait', 'memory.wait(cell.tail, seen, ms)', 'memory.wait(cell.tail, memory.load(cell.tail), ms)')],
  },
  {
    name: 'closed by a flag beside the ring',
    changes: [
      change(
        'writer',
        'const unit =',
        `if (isLast) { memory.store(cell.bell + 1, 1); if (memory.load(cell.wait) !== 0) ${notify} return; } const unit =`,
      ),
      change(
        'span',
        'if (ahead === 0)',
        'if (ahead === 0 && memory.load(cell.bell + 1) === 1) { const word = new Uint8Array(32); word[4] = 2; return new Span(position, word, layout); } if (ahead === 0)',
      ),
    ],
  },
  {
    name: 'taken over without waking those whom the dead writer had not told',
    changes: [change('writer', `${notify} this.#ringBell(); }`, '}')],
    // It ends between its first store of TAIL and the notification.
    scenario: { killedAfter: 10 },
  },
  {
    name: 'last word that lies in two pages',
    changes: [
      change('writer', 'const unit = isLast ? layout.page : layout.capacity;', 'const unit = layout.capacity;'),
    ],
    scenario: { readers: ['newest'] },
  },
  {
    name: 'EPOCH ignored',
    changes: [
      change(
        'span',
        'claimed - Math.floor(position / layout.page) >= layout.pages',
        '((intent - Math.floor(position / layout.page)) | 0) >= layout.pages',
      ),
    ],
    scenario: { origin: 2 ** 32, readers: [{ position: 48, seq: 0, index: 0 }] },
  },
  {
    name: 'EPOCH stored after the claim',
    changes: [
      change('writer', newEpoch, ''),
      change('writer', claim, `${claim} if (last >= nextSpan(last - 1)) ${newEpoch}`),
    ],
    scenario: { origin: 2 ** 30 - 4 },
    weak: true,
  },
  {
    name: 'part of a record parsed',
    changes: [change('span', 'if (end + size > bytes.length)', 'if (false)')],
    scenario: { spanBytes: 48 },
  },
]

const build = path.join(import.meta.dirname, '../..')

/** Production code, compiled, with a mistake in it. Fails where the code is no longer what the mistake changes. */
export async function withMistake({ changes }: Mistake): Promise<Parts> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'spillway-mistake-'))
  try {
    writeFileSync(path.join(folder, 'package.json'), '{"type":"module"}')
    for (const layer of ['core', 'shared']) {
      cpSync(path.join(build, 'src', layer), path.join(folder, layer), { recursive: true })
    }
    for (const { file, from, to } of changes) {
      const source = path.join(folder, `shared/${file}.js`)
      const text = readFileSync(source, 'utf8')
      const pieces = text
        .replace(/^\s*\/\/.*$/gm, '')
        .replace(/\s+/g, ' ')
        .split(from)
      assert.equal(pieces.length, 2, `${file}.js must have once: ${from}`)
      writeFileSync(source, pieces.join(to))
    }
    const files = ['layout', 'reader', 'span', 'wait', 'writer']
    const modules = await Promise.all(
      files.map((file) => import(pathToFileURL(path.join(folder, `shared/${file}.js`)).href)),
    )
    return Object.assign({}, ...modules)
  } finally {
    rmSync(folder, { recursive: true })
  }
}
