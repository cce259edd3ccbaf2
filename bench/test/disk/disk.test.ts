import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { diskConformance } from '../../src/disk/conformance.ts'
import type { DiskContender } from '../../src/disk/contender.ts'
import { diskContender, file } from '../../src/disk/contenders.ts'
import { eventBytes, eventText } from '../../src/disk/event.ts'
import { fileSystem } from '../../src/disk/part.ts'

test('an event has its size, whatever its number', () => {
  for (const n of [1, 1_000_000]) assert.equal(Buffer.byteLength(eventText(n)), eventBytes)
})

test('a store that gives everything back in order conforms', async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'bench-disk-'))
  t.after(() => rmSync(folder, { recursive: true }))
  assert.equal(await diskConformance(diskContender(file), path.join(folder, 'events')), undefined)
})

test('a store that loses, or changes the order, is told apart', async () => {
  assert.match(
    (await diskConformance(
      keeping((kept) => kept.slice(1)),
      '',
    )) ?? '',
    /gave 999 of 1000/,
  )
  assert.match(
    (await diskConformance(
      keeping((kept) => kept.reverse()),
      '',
    )) ?? '',
    /as event 1$/,
  )
})

test('the file system is that of the nearest mount', () => {
  const mounts = '/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/x xfs rw 0 0\n'
  assert.equal(fileSystem('/var/tmp', mounts), 'ext4')
  assert.equal(fileSystem('/tmp', mounts), 'tmpfs')
  assert.equal(fileSystem('/tmp/x/y', mounts), 'xfs')
  assert.equal(fileSystem('/tmp', ''), 'unknown')
})

/** Keeps in memory what `damage` leaves. */
function keeping(damage: (kept: string[]) => string[]): DiskContender {
  const kept: string[] = []
  const store = {
    append: (events: readonly string[]) => kept.push(...events),
    replay: async (take: (event: { payload: string }) => void) => {
      for (const payload of damage(kept)) take({ payload })
    },
    close: () => {},
  }
  return { name: 'damaged', role: 'peer', joins: false, inMemory: true, open: async () => store }
}
