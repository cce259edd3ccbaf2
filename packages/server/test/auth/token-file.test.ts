import assert from 'node:assert/strict'
import { chmod, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { type Rights, SpillwayError } from 'spillway'
import type { Authenticator } from '../../src/auth/authenticator.ts'
import { openTokenFile } from '../../src/auth/token-file.ts'
import { ManualClock } from '../support/clock.ts'
import { folder } from '../support/folder.ts'
import { everythingIn, RecordedLog, Recorder } from '../support/recorder.ts'
import { madeToken, tokensText } from '../support/tokens.ts'

interface Setup {
  readonly authenticator: Authenticator
  readonly file: string
  readonly clock: ManualClock
  readonly log: RecordedLog
  /** The subjects that listeners were told of. */
  readonly told: Recorder<string | undefined>
  rightsOf(token: { text: string }): Promise<Rights>
}

async function setup(t: TestContext, text: string, name = 'tokens.json'): Promise<Setup> {
  const file = path.join(await folder(t), name)
  await writeFile(file, text, { mode: 0o600 })
  return { file, ...(await open(t, file)) }
}

/** Longer than any test: what is seen was told by the system, unless a test asks for looks. */
const never = 3_600_000

async function open(t: TestContext, file: string, interval = never): Promise<Omit<Setup, 'file'>> {
  const clock = new ManualClock()
  const log = new RecordedLog()
  const authenticator = await openTokenFile({ file, clock, log, interval })
  t.after(() => authenticator.close())
  const told = new Recorder<string | undefined>()
  authenticator.onChange(told.add)
  return { authenticator, clock, log, told, rightsOf: async ({ text }) => authenticator.rightsOf(text) }
}

const refused = { code: 'UNAUTHORIZED', message: 'The token is not valid.' }
const a = madeToken({ read: 'all' })
const b = madeToken({ policies: ['p'] })
const policies = { p: { read: [{ topics: { Order: ['*'] } }] } }
const both = tokensText([a.known, b.known], policies)

async function replace(file: string, text: string): Promise<void> {
  await writeFile(`${file}.other`, text, { mode: 0o600 })
  await rename(`${file}.other`, file)
}

test('a token gives its rights, and its id is the subject', async (t) => {
  const { rightsOf } = await setup(t, both)
  assert.deepEqual(await rightsOf(a.token), {
    read: [{}],
    publish: [],
    subject: `token:${a.token.id}`,
    expiresAt: undefined,
  })
  assert.deepEqual((await rightsOf(b.token)).read, [{ topics: { Order: ['*'] } }])
})

test('an unknown token, a wrong secret and what is no token are refused alike, and nothing of them is told', async (t) => {
  const { authenticator } = await setup(t, both)
  const stranger = madeToken().token
  const wrong: [text: string, cause: RegExp][] = [
    [stranger.text, /There is no token/],
    [`spw_${a.token.id}_${b.token.text.slice(-43)}`, /It has not the secret of token/],
    [`spw_${a.token.id}_${'A'.repeat(43)}`, /It has not the secret/],
    [a.token.hash, /not written like a token/],
    [`spw_${a.token.id}_${a.token.hash}`, /not written like a token/],
    ['x'.repeat(1 << 20), /not written like a token/],
    ['', /not written like a token/],
  ]
  for (const [text, cause] of wrong) {
    assert.throws(
      () => authenticator.rightsOf(text),
      (error) => {
        assert.ok(error instanceof SpillwayError)
        assert.deepEqual({ code: error.code, message: error.message }, refused)
        assert.match((error.cause as Error).message, cause)
        const secret = text.slice(-43)
        assert.ok(secret === '' || !everythingIn(error).includes(secret))
        return true
      },
    )
  }
})

test('a token is refused from the moment on at which it expires', async (t) => {
  const end = new ManualClock().now() + 3000
  const { token, known } = madeToken({ read: 'all', expiresAt: new Date(end).toISOString() })
  const { clock, rightsOf } = await setup(t, tokensText([known]))
  clock.move(2999)
  assert.equal((await rightsOf(token)).expiresAt, end)
  clock.move(1)
  await assert.rejects(rightsOf(token), refused)
})

test('a revoked token is refused, and listeners are told its subject and no other', async (t) => {
  const { file, told, rightsOf } = await setup(t, both)
  await replace(file, tokensText([a.known], policies))
  assert.deepEqual(await told.count(1), [`token:${b.token.id}`])
  await assert.rejects(rightsOf(b.token), refused)
  await rightsOf(a.token)
})

test('a changed policy, secret or expiry tells the subjects it touches; a name or a new token tells nobody', async (t) => {
  const { file, told, log, rightsOf } = await setup(t, both)
  const c = madeToken({ read: 'all' })
  await replace(file, tokensText([{ ...a.known, name: 'other' }, b.known, c.known], policies))
  await until(() => rightsOf(c.token))
  assert.deepEqual(told.items, [])
  await replace(file, tokensText([a.known, b.known], { p: { read: [] } }))
  await told.until((subject) => subject === `token:${b.token.id}`)
  await told.until((subject) => subject === `token:${c.token.id}`)
  assert.deepEqual((await rightsOf(b.token)).read, [])
  await replace(file, tokensText([{ ...a.known, expiresAt: '2099-01-01T00:00:00Z' }, b.known], { p: { read: [] } }))
  await told.count(3)
  await replace(file, tokensText([{ ...a.known, hash: c.token.hash }, b.known], { p: { read: [] } }))
  await told.count(4)
  assert.deepEqual(told.items.slice(2), [`token:${a.token.id}`, `token:${a.token.id}`])
  await assert.rejects(rightsOf(a.token), refused)
  assert.match(log.text, /info Tokens of .* were changed or revoked/)
})

test('a listener that was taken back is told nothing', async (t) => {
  const { authenticator, file, told } = await setup(t, both)
  const other = new Recorder<string | undefined>()
  authenticator.onChange(other.add)()
  await replace(file, tokensText([a.known]))
  await told.count(1)
  assert.deepEqual(other.items, [])
})

test('a file that becomes wrong is reported once and changes nothing, until it is right again', async (t) => {
  const { file, log, told, rightsOf } = await setup(t, both)
  const canary = `spw_0123456789abcdef_${'canary'.padEnd(43, 'x')}`
  await replace(file, tokensText([{ ...a.known, hash: canary }]))
  await log.line(/error What was read last of .* stays in force.*tokens\[0\]\.hash must be/)
  await rightsOf(a.token)
  await rightsOf(b.token)
  await replace(file, `{"tokens":"${canary}`)
  await log.line(/It is not JSON/)
  await rightsOf(b.token)
  await replace(file, tokensText([a.known]))
  await log.line(/can be used again/)
  assert.deepEqual(await told.count(1), [`token:${b.token.id}`])
  assert.equal(log.lines.items.filter((line) => /stays in force/.test(line)).length, 2)
  assert.doesNotMatch(log.text, /canary/)
})

test('a file that is deleted is reported, and its tokens stay good; one that comes back counts', async (t) => {
  const { file, log, told, rightsOf } = await setup(t, both)
  await rm(file)
  await log.line(/error What was read last .* There is no /)
  await rightsOf(a.token)
  await writeFile(file, tokensText([a.known]))
  assert.deepEqual(await told.count(1), [`token:${b.token.id}`])
})

test('an empty file of tokens is a right one, and revokes all', async (t) => {
  const { file, told, rightsOf } = await setup(t, both)
  await replace(file, tokensText([]))
  await told.count(2)
  for (const { token } of [a, b]) await assert.rejects(rightsOf(token), refused)
})

test('the watch survives a file that is replaced, written in place and replaced again, twenty times', async (t) => {
  const { file, rightsOf } = await setup(t, both)
  for (let round = 0; round < 20; round++) {
    const { token, known } = madeToken({ read: 'all' })
    const change = round % 2 === 0 ? replace : writeFile
    await change(file, tokensText([a.known, known]))
    await until(() => rightsOf(token))
  }
})

test('a change behind a symbolic link to another directory is seen', async (t) => {
  // As Kubernetes mounts secrets: tokens.json -> ..data/tokens.json, and ..data -> a directory that is swapped.
  const dir = await folder(t)
  const file = path.join(dir, 'tokens.json')
  for (const [name, text] of [['one', both] as const, ['two', tokensText([a.known])] as const]) {
    await mkdir(path.join(dir, name))
    await writeFile(path.join(dir, name, 'tokens.json'), text)
  }
  await symlink('one', path.join(dir, '..data'))
  await symlink('..data/tokens.json', file)
  const { told, rightsOf } = await open(t, file, 20)
  await rightsOf(b.token)
  await symlink('two', path.join(dir, '..data_tmp'))
  await rename(path.join(dir, '..data_tmp'), path.join(dir, '..data'))
  assert.deepEqual(await told.count(1), [`token:${b.token.id}`])
})

test('a directory that is replaced is followed', async (t) => {
  const dir = path.join(await folder(t), 'conf')
  await mkdir(dir)
  const file = path.join(dir, 'tokens.json')
  await writeFile(file, both)
  const { told } = await open(t, file, 20)
  await mkdir(`${dir}-2`)
  await writeFile(path.join(`${dir}-2`, 'tokens.json'), tokensText([b.known], policies))
  await rename(dir, `${dir}-1`)
  await rename(`${dir}-2`, dir)
  assert.deepEqual(await told.count(1), [`token:${a.token.id}`])
})

test('a file that others of the machine may open is warned of', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  await writeFile(file, both)
  await chmod(file, 0o644)
  assert.match(
    (await open(t, file)).log.text,
    /warn .*tokens\.json is open to other users of this machine \(mode 0644\)/,
  )
  await chmod(file, 0o600)
  assert.equal((await open(t, file)).log.text, '')
})

test('a file that cannot be used from the start is an error that names it', async (t) => {
  const file = path.join(await folder(t), 'tokens.json')
  await assert.rejects(openTokenFile({ file }), { code: 'CONFIG', message: `There is no ${file}.` })
  await writeFile(file, '{"version":3}')
  await assert.rejects(openTokenFile({ file }), {
    code: 'CONFIG',
    message: `${file} cannot be used: version must be 1.`,
  })
})

/** Tries until it works: a new token tells nobody, so there is nothing to wait for. */
async function until(tryIt: () => Promise<unknown>): Promise<void> {
  for (;;) {
    try {
      await tryIt()
      return
    } catch {
      await new Promise(setImmediate)
    }
  }
}
