import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { encodeBatch } from '../../src/core/batch-text.ts'
import { encodeEvents, type PendingBatch } from '../../src/core/event.ts'
import { Random } from './random.ts'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)

/** Why tests of logs on disk are skipped; `false` where they run. */
export const noSqlite: string | false =
  major > 22 || (major === 22 && minor >= 13) ? false : `Node ${process.version} has no node:sqlite`

/** A path for a log, in a folder of its own that goes with the test. `inMemory`: on no disk, where the system has that. */
export async function logPath(t: TestContext, { inMemory = false } = {}): Promise<string> {
  const parent = inMemory && existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  const folder = await mkdtemp(path.join(parent, 'spillway-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  return path.join(folder, 'log.db')
}

/** One batch, which says of itself which append it belongs to, and how it must look. */
export interface Numbered {
  readonly append: number
  readonly position: number
}

/** The batches of append `n`: always the same for the same number, of sizes that land anywhere in a page and beyond one. */
export function numberedBatches(n: number): PendingBatch[] {
  const random = new Random(n)
  return Array.from({ length: random.oneIn(4) ? 2 : 1 }, (_, position) =>
    encodeEvents(
      Array.from({ length: 1 + random.below(3) }, (_, event) => ({
        topic: 'Numbered',
        type: 'n',
        key: `${n}`,
        payload: { append: n, position, event, padding: 'é'.repeat(random.below(random.oneIn(20) ? 6000 : 300)) },
      })),
    ),
  )
}

/** The same, as the file holds them. */
export function numberedTexts(n: number): string[] {
  return numberedBatches(n).map(({ events }) => encodeBatch(events))
}
