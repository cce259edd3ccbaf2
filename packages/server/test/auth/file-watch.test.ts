import assert from 'node:assert/strict'
import { once } from 'node:events'
import { watch } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { test } from 'node:test'
import { FileWatch } from '../../src/auth/file-watch.ts'
import { folder } from '../support/folder.ts'
import { Recorder } from '../support/recorder.ts'

const never = 3_600_000

test('a change during a look makes one more look, and no two run at once', async (t) => {
  const dir = await folder(t)
  const file = path.join(dir, 'file')
  const looks = new Recorder<() => void>()
  let running = 0
  const watching = new FileWatch(
    file,
    async () => {
      assert.equal(++running, 1)
      await new Promise<void>((resolve) => looks.add(resolve))
      running--
    },
    never,
  )
  const events = watch(dir)
  t.after(() => events.close())
  for (const text of ['one', 'two', 'three']) {
    const event = once(events, 'change')
    await writeFile(file, text)
    await event
  }
  const [first] = await looks.count(1)
  first?.()
  const [, second] = await looks.count(2)
  const closed = watching.close()
  assert.equal(running, 1)
  second?.()
  await closed
  assert.equal(running, 0)
  assert.equal(looks.items.length, 2)
})

test('other files of the directory are none of its business, and a closed watch looks no more', async (t) => {
  const dir = await folder(t)
  const looks = new Recorder<string>()
  const watching = new FileWatch(path.join(dir, 'file'), async () => looks.add('look'), never)
  const events = watch(dir)
  t.after(() => events.close())
  const changed = async (name: string) => {
    const event = once(events, 'change')
    await writeFile(path.join(dir, name), 'x')
    await event
    await new Promise(setImmediate)
  }
  await changed('other')
  assert.deepEqual(looks.items, [])
  await watching.close()
  await changed('file')
  assert.deepEqual(looks.items, [])
})

test('a directory that is not there is no error, and its file is found once it is', async (t) => {
  const dir = path.join(await folder(t), 'later')
  const looks = new Recorder<string>()
  const watching = new FileWatch(path.join(dir, 'file'), async () => looks.add('look'), 10)
  t.after(() => watching.close())
  await looks.count(1)
  await mkdir(dir)
  await writeFile(path.join(dir, 'file'), 'x')
  await looks.count(2)
})
