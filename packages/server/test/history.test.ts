import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { event, gist, publish } from './support/events.ts'
import { Program, run, serve } from './support/program.ts'

async function folder(t: TestContext): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'spillway-'))
  t.after(() => rm(made, { recursive: true, force: true }))
  return path.join(made, 'data')
}

/** A directory with the batches 1 to `count`, whose server has ended. */
async function filled(t: TestContext, count: number): Promise<string> {
  const data = await folder(t)
  const { server, url } = await serve(t, '--data', data)
  for (let n = 1; n <= count; n++) await publish(url, [event(`a${n}`), event(`b${n}`, 'Other')])
  server.kill('SIGTERM')
  await server.ended
  return data
}

async function inspected(t: TestContext, data: string): Promise<Record<string, unknown>> {
  const { stdout, stderr } = await run(t, ['inspect', data, '--json'])
  assert.equal(stderr, '')
  return JSON.parse(stdout)
}

/** Flips a bit in the payload of the batch whose first event has this key. */
async function damage(data: string, key: string): Promise<void> {
  const file = path.join(data, 'spillway.db')
  const bytes = await readFile(file)
  const at = bytes.indexOf(`OrderPlaced\x1f${key}\x1f`)
  assert.ok(at > 0)
  bytes[at] = (bytes[at] as number) ^ 1
  await writeFile(file, bytes)
}

test('what is exported while it is served is what was published, and an import has it to the last digit', async (t) => {
  const data = await folder(t)
  const { url } = await serve(t, '--data', data)
  const odd = { ...event('é\u2028', 'T'), namespace: 'n', filterKeys: ['f', 'g'] }
  await publish(url, event('1'), [event('2'), odd])
  const flags = ['--topic', 'Big', '--type', 't', '--payload', '{"n":1600000000000000001,"b":1,"a":2}']
  await run(t, ['publish', '--url', url, ...flags, '--index', '1000'])

  const { code, stdout, stderr } = await run(t, ['export', data])
  assert.equal(code, 0)
  assert.equal(stderr, 'spillway export: 3 batches written.\n')
  const [first, second, third, ...more] = stdout.split('\n')
  assert.deepEqual(more, ['{"end":{"batches":3}}', ''])
  assert.equal(JSON.parse(first as string).index, 1)
  assert.ok(Math.abs(JSON.parse(first as string).time - Date.now()) < 60_000)
  assert.deepEqual(JSON.parse(second as string).events[1], { ...odd, payload: null })
  assert.match(third as string, /^\{"index":1000,.*"payload":\{"n":1600000000000000001,"b":1,"a":2\}\}\]\}$/)

  const copy = await folder(t)
  const imported = await run(t, ['import', copy], { input: stdout })
  assert.equal(imported.stderr, 'spillway import: 3 batches imported.\n')
  assert.equal(imported.code, 0)
  assert.equal((await run(t, ['export', copy])).stdout, stdout)
  assert.notEqual((await inspected(t, copy)).epoch, (await inspected(t, data)).epoch)

  const served = await serve(t, '--data', copy)
  await publish(served.url, event('next'))
  const { newest } = (await (await fetch(`${served.url}/v1/status`)).json()) as { newest: number }
  assert.equal(newest, 1001)
})

test('inspect shows the range, size, epoch and topics, finds all whole and leaves the directory as it was', async (t) => {
  const data = await filled(t, 30)
  const before = readdirSync(data).sort()
  const found = await inspected(t, data)
  const { epoch, fileBytes, firstTime, lastTime, path: file, payloadBytes, ...rest } = found
  assert.deepEqual(rest, {
    whole: true,
    durability: 'power',
    floor: 0,
    last: 30,
    batches: 30,
    events: 60,
    topics: { Order: 30, Other: 30 },
    lost: [],
    problems: [],
  })
  assert.equal(file, path.join(data, 'spillway.db'))
  assert.equal(payloadBytes, 60 * 'null'.length)
  assert.match(String(epoch), /^[\w-]+$/)
  assert.ok(Number(fileBytes) > 0 && Number(firstTime) <= Number(lastTime))
  const people = await run(t, ['inspect', data])
  assert.equal(people.code, 0)
  assert.match(people.stdout, /^ {2}indexes +1 to 30$/m)
  assert.match(people.stdout, /^ {2}topics +Order 30$/m)
  assert.match(people.stdout, /Every batch is whole\.\n$/)
  assert.deepEqual(readdirSync(data).sort(), before)
})

test('what is damaged is named by inspect and export, and all else is exported and can be imported', async (t) => {
  const data = await filled(t, 30)
  await damage(data, 'a7')
  await damage(data, 'a8')
  await damage(data, 'a30')
  const { code, stdout } = await run(t, ['inspect', data, '--json'])
  assert.equal(code, 1)
  const { whole, batches, last, lost, problems } = JSON.parse(stdout)
  assert.deepEqual([whole, batches, last, problems], [false, 27, 30, []])
  assert.deepEqual(lost, [
    { after: 6, before: 9 },
    { after: 29, before: 31 },
  ])
  const people = await run(t, ['inspect', data])
  assert.match(people.stdout, /Damaged or missing: indexes 7 to 8\.\n {2}Damaged or missing: index 30\.\n$/)

  const exported = await run(t, ['export', data])
  assert.equal(exported.code, 1)
  assert.match(
    exported.stderr,
    /Damaged or missing: indexes 7 to 8\.\n[\s\S]*27 batches written, not all that was stored\./,
  )
  const lines = exported.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  assert.deepEqual(lines.pop(), { end: { batches: 27 } })
  const isLoss = (value: { lost?: unknown }) => value.lost !== undefined
  assert.deepEqual(
    lines.filter(isLoss).map((value) => value.lost),
    lost,
  )
  const indexes = lines.filter((value) => !isLoss(value)).map(({ index }) => index)
  assert.deepEqual(
    indexes,
    Array.from({ length: 29 }, (_, n) => n + 1).filter((n) => n !== 7 && n !== 8),
  )
  const copy = await folder(t)
  const imported = await run(t, ['import', copy], { input: exported.stdout })
  assert.equal(imported.code, 0)
  assert.match(
    imported.stderr,
    /Missing already when it was exported: indexes 7 to 8\.\n.*: index 30\.\n.*27 batches imported\.\n$/,
  )
  // The same losses are told of the copy, to whoever inspects it and to readers.
  const again = await run(t, ['inspect', copy, '--json'])
  assert.equal(again.code, 1)
  assert.deepEqual(JSON.parse(again.stdout).lost, lost)
  const served = await serve(t, '--data', copy)
  await publish(served.url, event('next'))
  const read = await run(t, ['tail', '--url', served.url, '--from', 'earliest', '--count', '28', '--json'])
  const gists = read.stdout.trim().split('\n').map(gist)
  assert.deepEqual(
    gists.flatMap((each, n) => (each === 'gap' ? [n] : [])),
    [6, 28],
  )
  assert.equal(gists.at(-1), 'next')
})

test('a history that is damaged beyond serving is exported, imported and served again', async (t) => {
  const data = await filled(t, 30)
  await damage(data, 'a30')
  // Without its mark nobody can say which index the damaged row has.
  await rm(path.join(data, 'spillway.db-mark'))
  const refused = await run(t, ['serve', '--port', '0', '--data', data])
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /The newest batch of .* is damaged\..* save what is whole with `spillway export`/)
  const exported = await run(t, ['export', data])
  assert.equal(exported.code, 1)
  const copy = await folder(t)
  const imported = await run(t, ['import', copy], { input: exported.stdout })
  assert.equal(imported.code, 0)
  assert.match(imported.stderr, /Missing already when it was exported: indexes from 30 on\.\n.*29 batches imported/)
  const { url } = await serve(t, '--data', copy)
  await publish(url, event('next'))
  const { stdout } = await run(t, ['tail', '--url', url, '--last', '2', '--count', '2', '--json'])
  assert.deepEqual(stdout.trim().split('\n').map(gist), ['a29 b29', 'next'])
})

test('an export that was cut off, or of which batches are missing, is imported only as a part', async (t) => {
  const whole = await run(t, ['export', await filled(t, 3)])
  const lines = whole.stdout.split('\n')
  for (const [input, message] of [
    [
      lines.slice(0, 3).join('\n'),
      /does not have the line that ends an export, so it was cut off\. Nothing was imported/,
    ],
    [lines.slice(1).join('\n'), /The export had 3 batches, the input has 2\. Nothing was imported/],
  ] as const) {
    const data = await folder(t)
    const { code, stderr } = await run(t, ['import', data], { input })
    assert.equal(code, 1)
    assert.match(stderr, message)
    assert.ok(!existsSync(data))
    const part = await run(t, ['import', data, '--partial'], { input: `\ufeff${input}` })
    assert.equal(part.code, 0, part.stderr)
    assert.equal((await inspected(t, data)).batches, input.startsWith(lines[0] as string) ? 3 : 2)
  }
})

test('an export whose reader goes away fails, and leaves the directory as it was', async (t) => {
  const data = await folder(t)
  const { server, url } = await serve(t, '--data', data)
  // More than the pipe and the buffers before it hold.
  for (let n = 0; n < 8; n++) await publish(url, [{ ...event(`${n}`), payload: 'x'.repeat(2 ** 19) }])
  server.kill('SIGTERM')
  await server.ended
  const before = readdirSync(data).sort()
  const exporting = new Program(t, ['export', data])
  exporting.child.stdout?.destroy()
  assert.equal(await exporting.ended, 1)
  assert.match(exporting.stderr.text, /The output could not be written, it is not whole: write EPIPE\n$/)
  assert.deepEqual(readdirSync(data).sort(), before)
})

test('--data that cannot be made, or is a file, is named', async (t) => {
  const data = await folder(t)
  await writeFile(data, '')
  for (const [folder, message] of [
    [data, /^spillway serve: --data .*data is not a directory\.$/m],
    [path.join(data, 'below'), /^spillway serve: --data .*below (is not a directory|cannot be made)/m],
    ...(process.platform === 'linux'
      ? ([['/proc/x/y', /^spillway serve: --data \/proc\/x\/y cannot be made/m]] as const)
      : []),
  ] as const) {
    const { code, stderr } = await run(t, ['serve', '--port', '0', '--data', folder])
    assert.equal(code, 1)
    assert.match(stderr, message)
  }
})

const line = (index: number, time = 1) => `{"index":${index},"time":${time},"events":[{"topic":"T","type":"t"}]}\n`
const end = (batches: number) => `{"end":{"batches":${batches}}}\n`

for (const [what, input, message] of [
  ['is not JSON', `${line(1)}{`, /Line 2 is not JSON: .* Nothing was imported\./],
  ['has no index', '{"time":1,"events":[{"topic":"T","type":"t"}]}\n', /Line 1 has no index\./],
  ['has no time', '{"index":1,"events":[{"topic":"T","type":"t"}]}\n', /Line 1 has no time/],
  ['has no events', '{"index":1,"time":1,"events":[]}\n', /Line 1 has no events\./],
  ['has an unknown field', '{"index":1,"time":1,"evens":1,"events":[]}\n', /Line 1 has the unknown field "evens"/],
  ['goes back', line(1) + line(3) + line(3), /^spillway import: Line 3 has index 3 after 3\. Nothing was imported\.$/m],
  ['goes back in time', line(1, 5) + line(3, 4), /Line 2 has a time before that of index 1\./],
  ['has an event that is wrong', '{"index":1,"time":1,"events":[{"topic":"T"}]}\n', /Line 1: event\.type/],
  [
    'has a time in the future',
    line(1) + line(2, 4_000_000_000_000) + end(2),
    /Index 2 has a time in the future, 4000000000000 Unix milliseconds\. Correct it, or the clock\./,
  ],
  ['has a time beyond all', line(1, 2 ** 53 - 1), /Line 1 has no time in Unix/],
  ['ends it otherwise', `${line(1)}{"end":3}\n`, /Line 2 should end the export as `spillway export` does/],
  [
    'has a loss that makes no sense',
    `${line(5)}{"lost":{"after":3,"before":9}}\n`,
    /Line 2 should say what is missing as/,
  ],
  ['comes after its end', line(1) + end(1) + line(2), /Line 3 follows the line that ends the export\./],
  ['is missing', '\n', /^spillway import: Standard input has no batches\. Nothing was imported\.$/m],
  ['is not UTF-8', Buffer.concat([Buffer.from(line(1)), Buffer.from([0xff, 0x0a])]), /Line 2 is not UTF-8/],
] as const) {
  test(`an import with a line that ${what} names it and leaves nothing behind`, async (t) => {
    const data = await folder(t)
    const { code, stderr } = await run(t, ['import', data], { input })
    assert.equal(code, 1)
    assert.match(stderr, message)
    assert.ok(!existsSync(data))
  })
}

test('an import touches no history that is there, nor a directory in use', async (t) => {
  const data = await filled(t, 3)
  const before = await readFile(path.join(data, 'spillway.db'))
  const there = await run(t, ['import', data], { input: line(1) })
  assert.equal(there.code, 1)
  assert.match(there.stderr, /There is a log already: .*spillway\.db\. .* It was not touched\./)
  assert.deepEqual(await readFile(path.join(data, 'spillway.db')), before)

  await serve(t, '--data', data)
  const used = await run(t, ['import', data], { input: line(1) })
  assert.equal(used.code, 1)
  assert.match(used.stderr, /is in use by another process/)
})

test('the journal of a file that was removed is not played into another one', async (t) => {
  const data = await folder(t)
  const { server, url } = await serve(t, '--data', data)
  await publish(url, event('old'))
  server.kill('SIGKILL')
  await server.ended
  await rm(path.join(data, 'spillway.db'))
  for (const args of [
    ['import', data],
    ['serve', '--port', '0', '--data', data],
  ]) {
    const { code, stderr } = await run(t, args, { input: line(1) })
    assert.equal(code, 1)
    assert.match(stderr, /spillway\.db-wal is left of a file that is not there/)
  }
  assert.ok(!existsSync(path.join(data, 'spillway.db')))
})

test('nobody serves a directory while an import runs; one that was killed is begun anew', async (t) => {
  const data = await folder(t)
  const importing = new Program(t, ['import', data], { input: null })
  importing.child.stdin?.write(Array.from({ length: 3000 }, (_, n) => line(n + 1)).join(''))
  while (!existsSync(path.join(data, 'spillway.db-import'))) await new Promise((resolve) => setImmediate(resolve))
  const refused = await run(t, ['serve', '--port', '0', '--data', data])
  assert.equal(refused.code, 1)
  assert.match(refused.stderr, /is in use by another process/)
  importing.kill('SIGKILL')
  await importing.ended
  assert.ok(!existsSync(path.join(data, 'spillway.db')))
  const { code } = await run(t, ['import', data], { input: line(5) + end(1) })
  assert.equal(code, 0)
  const { last, batches } = await inspected(t, data)
  assert.deepEqual([last, batches], [5, 1])
  assert.deepEqual(
    readdirSync(data).filter((name) => name.includes('import')),
    [],
  )
})

test('a copy taken while it is served starts another epoch where it is put back without its mark', async (t) => {
  const data = await folder(t)
  const { url } = await serve(t, '--data', data)
  await publish(url, event('1'), event('2'))
  const copy = await folder(t)
  await mkdir(copy)
  const db = new DatabaseSync(path.join(data, 'spillway.db'), { readOnly: true })
  db.exec(`VACUUM INTO '${path.join(copy, 'spillway.db')}'`)
  db.close()
  await publish(url, event('3'))
  const { cursor } = (await (await fetch(`${url}/v1/status`)).json()) as { cursor: string }

  const restored = await serve(t, '--data', copy)
  await publish(restored.url, event('other 3'))
  const read = ['tail', '--url', restored.url, '--from', cursor, '--count', '3', '--json']
  const { stdout } = await run(t, read)
  const lines = stdout.trim().split('\n')
  assert.deepEqual(lines.map(gist), ['reset', '1', '2', 'other 3'])
})

test('a directory without a history is named, and so is a file that is none', async (t) => {
  const data = await folder(t)
  for (const command of ['inspect', 'export']) {
    const { code, stderr } = await run(t, [command, data])
    assert.equal(code, 1)
    assert.match(stderr, /There is no .*spillway\.db\. Name the directory/)
  }
  const parent = path.dirname(data)
  await writeFile(path.join(parent, 'spillway.db'), 'not a database')
  for (const command of ['inspect', 'export']) {
    const { code, stderr } = await run(t, [command, parent])
    assert.equal(code, 1)
    assert.match(stderr, /spillway\.db is not a log of Spillway/)
  }
})
