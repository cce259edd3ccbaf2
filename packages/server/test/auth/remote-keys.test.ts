import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import type { KeySource } from '../../src/auth/key-set.ts'
import { openRemoteKeys, type RemoteKeysOptions } from '../../src/auth/remote-keys.ts'
import { ManualClock } from '../support/clock.ts'
import { type IssuerKey, issuerKey, type KeyServer, keyServer, keySet, serving } from '../support/issuer.ts'
import { RecordedLog, Recorder } from '../support/recorder.ts'

const one = issuerKey('one')
const two = issuerKey('two')

interface Setup {
  readonly keys: KeySource
  readonly server: KeyServer
  readonly clock: ManualClock
  readonly log: RecordedLog
  find(key: IssuerKey): Promise<unknown>
}

async function setup(
  t: TestContext,
  answer: KeyServer['answer'],
  { path = '', ...options }: Partial<RemoteKeysOptions> & { path?: string } = {},
): Promise<Setup> {
  const server = await keyServer(t, answer)
  const clock = new ManualClock()
  const log = new RecordedLog()
  const keys = await openRemoteKeys({ url: server.url + path, clock, log, ...options })
  t.after(() => keys.close())
  const find = ({ kid, alg }: IssuerKey) => keys.keyFor({ kid, alg })
  return { keys, server, clock, log, find }
}

const noMatch = { code: 'ERR_JWKS_NO_MATCHING_KEY' }
const missing = { code: 'UNREACHABLE', message: /Tokens cannot be checked at the moment/ }

test('keys are fetched once, and again when they are old', async (t) => {
  const { server, clock, find } = await setup(t, serving(one))
  for (let n = 0; n < 100; n++) await find(one)
  assert.equal(server.requests.items.length, 1)
  clock.move(299_999)
  await find(one)
  assert.equal(server.requests.items.length, 1)
  clock.move(1)
  await server.requests.count(2)
})

test('a new key is fetched when its first token comes, but not sooner than the cooldown allows', async (t) => {
  const { server, clock, find } = await setup(t, serving(one))
  server.answer = serving(one, two)
  await assert.rejects(find(two), noMatch)
  clock.move(29_999)
  await assert.rejects(find(two), noMatch)
  assert.equal(server.requests.items.length, 1)
  clock.move(1)
  await find(two)
  await find(one)
  assert.equal(server.requests.items.length, 2)
})

test('a thousand made-up key IDs cost one fetch', async (t) => {
  const { keys, server, clock } = await setup(t, serving(one))
  clock.move(30_000)
  const made = Array.from({ length: 1000 }, (_, n) => keys.keyFor({ alg: 'ES256', kid: `made-up-${n}` }))
  for (const { status } of await Promise.allSettled(made)) assert.equal(status, 'rejected')
  for (let n = 0; n < 100; n++) await assert.rejects(keys.keyFor({ alg: 'ES256', kid: `more-${n}` }), noMatch)
  assert.equal(server.requests.items.length, 2)
})

test('a known key does not wait for the fetch that an unknown one began', async (t) => {
  const { server, clock, find } = await setup(t, serving(one))
  const held = new Recorder<() => void>()
  server.answer = (response) => held.add(() => response.end(keySet(one, two)))
  clock.move(30_000)
  const waiting = find(two)
  const [release] = await held.count(1)
  await find(one)
  release?.()
  await waiting
})

test('listeners are told when a key is gone, and not when one is new', async (t) => {
  const { keys, server, clock, log, find } = await setup(t, serving(one))
  const told = new Recorder<string>()
  const stop = keys.onChange(() => told.add('told'))
  server.answer = serving(one, two)
  clock.move(30_000)
  await find(two)
  assert.deepEqual(told.items, [])
  server.answer = serving(two)
  clock.move(300_000)
  await told.count(1)
  await assert.rejects(find(one), noMatch)
  stop()
  server.answer = serving(one)
  clock.move(300_000)
  await log.lines.count(2)
  assert.equal(told.items.length, 1)
})

const stranger = issuerKey('stranger')
const bad: Record<string, { answer: KeyServer['answer']; warning: RegExp }> = {
  garbage: { answer: (response) => response.end('<html>'), warning: /It is not JSON/ },
  'a list': { answer: (response) => response.end('[]'), warning: /must be a JSON Web Key Set/ },
  'null keys': { answer: (response) => response.end('{"keys":[null]}'), warning: /must be a JSON Web Key Set/ },
  'an error': { answer: (response) => response.writeHead(500).end(keySet(stranger)), warning: /The answer was 500/ },
  'no content': { answer: (response) => response.writeHead(204).end(), warning: /The answer was 204/ },
  'a broken connection': { answer: (response) => response.destroy(), warning: /fetch failed/ },
  'half an answer': {
    answer: (response) => {
      response.writeHead(200, { 'content-length': 1000 }).write('{"keys":', () => response.destroy())
    },
    warning: /terminated|It is not JSON|aborted|fetch failed/,
  },
  'an endless answer': {
    answer: (response) => {
      const more = () => {
        while (response.write(' '.repeat(65_536)));
      }
      response.on('drain', more)
      more()
    },
    warning: /The answer has more than 262144 bytes/,
  },
}

for (const [name, { answer, warning }] of Object.entries(bad)) {
  test(`${name} instead of keys is reported, and the keys of before are used`, async (t) => {
    const { server, clock, log, find } = await setup(t, serving(one))
    server.answer = answer
    clock.move(300_000)
    const line = await log.line(/could not be fetched/)
    assert.match(line, warning)
    assert.match(line, /Those of before are used/)
    await find(one)
    await assert.rejects(find(stranger), noMatch)
    server.answer = serving(two)
    clock.move(30_000)
    await server.requests.count(3)
    await log.line(/are gone/)
    await find(two)
  })
}

test('a redirect is not followed, wherever it leads', async (t) => {
  for (const status of [301, 302, 303, 307, 308]) {
    const { server, log, find } = await setup(t, (response, request) => {
      if (request.url === '/keys') response.writeHead(status, { location: '/elsewhere' }).end()
      else response.end(keySet(one))
    })
    assert.match(log.text, new RegExp(`The answer was ${status}, and redirects are not followed`))
    await assert.rejects(find(one), missing)
    assert.deepEqual(server.requests.items, ['/keys'])
  }
})

test('an answer that does not come is given up, and its connection with it', async (t) => {
  const gone = new Recorder<string>()
  const { log, find } = await setup(t, (response) => void once(response, 'close').then(() => gone.add('closed')), {
    timeout: 50,
  })
  assert.match(log.text, /could not be fetched.*No token can be checked.*timeout/s)
  await gone.count(1)
  await assert.rejects(find(one), missing)
})

test('without keys every token waits for the issuer, and each try is a cooldown apart', async (t) => {
  const { server, clock, find } = await setup(t, (response) => response.writeHead(503).end())
  for (let n = 0; n < 100; n++) await assert.rejects(find(one), missing)
  assert.equal(server.requests.items.length, 1)
  server.answer = serving(one)
  clock.move(30_000)
  await find(one)
})

test('keys that could not be fetched anew for an hour are not used any more', async (t) => {
  const { server, clock, log, find } = await setup(t, serving(one))
  server.answer = (response) => response.writeHead(503).end()
  clock.move(3_599_999)
  await log.line(/Those of before are used/)
  await find(one)
  clock.move(1)
  await assert.rejects(find(one), missing)
})

test('closing ends what is under way', async (t) => {
  const { keys, server, clock, log, find } = await setup(t, serving(one))
  const gone = new Recorder<string>()
  server.answer = (response) => void once(response, 'close').then(() => gone.add('closed'))
  clock.move(300_000)
  await server.requests.count(2)
  await keys.close()
  await gone.count(1)
  clock.move(300_000)
  await find(one)
  assert.equal(server.requests.items.length, 2)
  assert.equal(log.text, '')
})

test('only https, or http on this machine, without a password, is a URL of keys', async () => {
  const urls = [
    'http://id.example/keys',
    'http://169.254.169.254/',
    'http://2130706434.nip.example/',
    'file:///etc/keys',
  ]
  for (const url of [...urls, 'data:application/json,{"keys":[]}', 'ftp://127.0.0.1/', 'keys.json', '']) {
    await assert.rejects(openRemoteKeys({ url }), { code: 'CONFIG', message: /must be https, or http on this/ }, url)
  }
  await assert.rejects(openRemoteKeys({ url: 'https://user:secret@id.example/' }), ({ message }: Error) => {
    return /must not hold a name or password/.test(message) && !/secret/.test(message)
  })
})

test('the query of the URL, which may be a secret, is not logged', async (t) => {
  const { log, server } = await setup(t, (response) => response.destroy(), { path: '?code=canary-1' })
  assert.deepEqual(server.requests.items, ['/keys?code=canary-1'])
  assert.match(log.text, /could not be fetched/)
  assert.doesNotMatch(log.text, /canary/)
})
