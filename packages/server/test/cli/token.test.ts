import assert from 'node:assert/strict'
import { readFile, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { openTokenFile } from '../../src/auth/token-file.ts'
import { folder } from '../support/folder.ts'
import { run } from '../support/program.ts'
import { Recorder } from '../support/recorder.ts'
import { madeToken, tokensText } from '../support/tokens.ts'

const pattern = /^(spw_([0-9a-f]{16})_([\w-]{43}))\n$/

async function create(t: TestContext, file: string, ...args: string[]) {
  const { code, stdout, stderr } = await run(t, ['token', 'create', '--file', file, '--name', 'n', ...args])
  assert.equal(code, 0, stderr)
  const [, text = '', id = '', secret = ''] = pattern.exec(stdout) ?? []
  assert.ok(text, stdout)
  return { text, id, secret, stderr }
}

async function rights(t: TestContext, file: string, token: string) {
  const authenticator = await openTokenFile({ file })
  t.after(() => authenticator.close())
  return authenticator.rightsOf(token)
}

test('create prints the token alone on standard output, once, and keeps no secret', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const { text, id, secret, stderr } = await create(t, file, '--read', '*')
  assert.match(stderr, new RegExp(`^Token ${id} is in .*tokens\\.json\\. Keep it now: it is shown this once\\.\n$`))
  assert.doesNotMatch(stderr, new RegExp(secret))
  assert.equal((await stat(file)).mode & 0o777, 0o600)
  assert.ok(!(await readFile(file, 'utf8')).includes(secret))
  assert.deepEqual((await rights(t, file, text)).read, [{ topics: { '*': ['*'] } }])
})

test('create makes rules of topics, keys and namespaces', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const given = [
    '--read',
    'Order:a',
    '--read',
    'Order:b:c',
    '--read',
    'Job',
    '--publish',
    'Order:',
    '--namespace',
    'prod',
  ]
  const { text } = await create(t, file, ...given, '--namespace', '', '--expires', '90d')
  const { read, publish, expiresAt = 0 } = await rights(t, file, text)
  const namespaces = ['prod', '']
  assert.deepEqual(read, [{ topics: { Order: ['a', 'b:c'], Job: ['*'] }, namespaces }])
  assert.deepEqual(publish, [{ topics: { Order: [''] }, namespaces }])
  assert.ok(Math.abs(expiresAt - Date.now() - 90 * 86_400_000) < 60_000)
})

test('create takes policies of the file, and names one that it has not', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const policies = { 'orders-reader': { read: [{ topics: { Order: ['*'] } }] } }
  await writeFile(file, tokensText([], policies))
  const { text } = await create(t, file, '--policy', 'orders-reader')
  assert.deepEqual((await rights(t, file, text)).read, policies['orders-reader'].read)
  const args = ['token', 'create', '--file', file, '--name', 'n', '--policy', 'orders-reeder']
  const { code, stdout, stderr } = await run(t, args)
  assert.deepEqual([code, stdout], [1, ''])
  assert.match(stderr, /tokens\.json has no policy "orders-reeder"\. Did you mean orders-reader\?/)
})

test('list shows tokens without their hashes, for people and as JSON', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const mine = madeToken({ name: 'evil\u001b[2J\nname', policies: ['p'] })
  const old = madeToken({ name: 'old', read: 'all', publish: [{}], expiresAt: '2020-01-01T00:00:00Z' })
  await writeFile(file, tokensText([mine.known, old.known], { p: {} }))
  const { code, stdout, stderr } = await run(t, ['token', 'list', '--file', file])
  assert.deepEqual([code, stderr], [0, ''])
  assert.deepEqual(
    stdout.split('\n').map((line) => line.split(/ {2,}/)),
    [
      ['ID', 'NAME', 'RIGHTS', 'CREATED', 'EXPIRES'],
      [mine.token.id, 'evil\\u001b[2J\\u000aname', 'p', '2026-11-24T10:00:00Z', 'never'],
      [old.token.id, 'old', 'own read rules, own publish rules', '2026-11-24T10:00:00Z', 'expired'],
      [''],
    ],
  )
  const json = await run(t, ['token', 'list', '--file', file, '--json'])
  assert.deepEqual(JSON.parse(json.stdout)[1], {
    id: old.token.id,
    name: 'old',
    policies: [],
    read: 'all',
    publish: [{}],
    createdAt: '2026-11-24T10:00:00Z',
    expiresAt: '2020-01-01T00:00:00Z',
    expired: true,
  })
  for (const { token } of [mine, old]) {
    for (const secret of [token.text.slice(-43), token.hash.slice(7)])
      assert.ok(!(stdout + json.stdout).includes(secret))
  }
})

test('a file without tokens is said to have none', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  await writeFile(file, tokensText([]))
  assert.equal((await run(t, ['token', 'list', '--file', file])).stdout, 'There are no tokens.\n')
})

test('revoke takes a token out, and a server that has the file refuses it and tells its subject', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const { text, id } = await create(t, file, '--read', '*')
  const other = await create(t, file, '--read', '*')
  const authenticator = await openTokenFile({ file })
  t.after(() => authenticator.close())
  const told = new Recorder<string | undefined>()
  authenticator.onChange(told.add)
  const { code, stderr } = await run(t, ['token', 'revoke', id, '--file', file])
  assert.deepEqual([code, stderr], [0, `Token ${id} (n) is revoked.\n`])
  assert.deepEqual(await told.count(1), [`token:${id}`])
  assert.throws(() => authenticator.rightsOf(text), { code: 'UNAUTHORIZED' })
  await authenticator.rightsOf(other.text)
})

test('revoke takes a whole token for its id, and never shows it', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const { text, secret } = await create(t, file, '--read', '*')
  const first = await run(t, ['token', 'revoke', text, '--file', file])
  const second = await run(t, ['token', 'revoke', text, '--file', file])
  assert.deepEqual([first.code, second.code], [0, 1])
  assert.match(second.stderr, /tokens\.json has no token with this id/)
  for (const { stdout, stderr } of [first, second]) assert.ok(!(stdout + stderr).includes(secret))
})

test('a missing or wrong file is named, and ends with 1', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const missing = await run(t, ['token', 'list', '--file', file])
  assert.deepEqual([missing.code, missing.stderr], [1, `spillway token: There is no ${file}.\n`])
  const canary = 'canary-d3adb33f'
  for (const text of [`{"version":1,"tokens":[{"hash":"${canary}"}]}`, `{"version":1,"tokens":[${canary}]}`]) {
    await writeFile(file, text)
    for (const args of [['list'], ['revoke', 'x'], ['create', '--name', 'n', '--read', '*']]) {
      const { code, stdout, stderr } = await run(t, ['token', ...args, '--file', file])
      assert.deepEqual([code, stdout], [1, ''])
      assert.match(stderr, /^spillway token: .*tokens\.json cannot be used: /)
      assert.ok(!stderr.includes(canary))
    }
    assert.equal(await readFile(file, 'utf8'), text)
  }
})

test('ten processes that create tokens at once lose none', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  const made = await Promise.all(Array.from({ length: 10 }, () => create(t, file, '--read', '*')))
  const { stdout } = await run(t, ['token', 'list', '--file', file, '--json'])
  const ids = (JSON.parse(stdout) as { id: string }[]).map(({ id }) => id)
  assert.deepEqual(ids.sort(), made.map(({ id }) => id).sort())
  for (const { text } of made) await rights(t, file, text)
})

test('actions have a help of their own', async (t) => {
  for (const action of ['create', 'list', 'revoke']) {
    const { code, stdout } = await run(t, ['token', action, '--help'])
    assert.equal(code, 0)
    assert.match(stdout, new RegExp(`Usage:\n  spillway token ${action}`))
    assert.match(stdout, new RegExp(`Examples:\n.*spillway token ${action}`))
    for (const line of stdout.split('\n')) assert.ok(line.length <= 100, line)
  }
})
