import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Permit } from 'spillway'
import { formatTokenDocument, parseTokenDocument, rightsIn } from '../../src/auth/token-document.ts'
import { everythingIn } from '../support/recorder.ts'
import { madeToken, tokensText } from '../support/tokens.ts'

const canary = 'canary-d3adb33f'

test('a document is read as it was written', () => {
  const { known } = madeToken({ policies: ['p'], read: 'all', expiresAt: '2027-01-01T00:00:00+01:00' })
  const text = tokensText([known], { p: { publish: [{ topics: { Order: ['*'] } }] } })
  assert.deepEqual(parseTokenDocument(formatTokenDocument(parseTokenDocument(text))), JSON.parse(text))
})

const event = (topic: string, key = 'k') => ({ topic, key, namespace: '', filterKeys: [] })

test('the rights of several policies and of the token itself add up, and a rule that denies holds against all', () => {
  const { known } = madeToken({ policies: ['all', 'orders', 'no-secrets'], publish: [{ topics: { Job: ['*'] } }] })
  const document = parseTokenDocument(
    tokensText([known], {
      all: { read: 'all' },
      orders: { publish: [{ topics: { Order: ['*'] } }] },
      'no-secrets': { read: [{ effect: 'deny', topics: { Secret: ['*'], Order: ['hidden'] } }] },
    }),
  )
  const rights = rightsIn(document, known)
  const read = new Permit('read', rights.read)
  assert.ok(read.mayRead(event('Order')))
  assert.ok(!read.mayRead(event('Secret')))
  assert.ok(!read.mayRead(event('Order', 'hidden')))
  const publish = new Permit('publish', rights.publish)
  for (const topic of ['Order', 'Job']) assert.ok(publish.mayPublish(event(topic)))
  assert.ok(!publish.mayPublish(event('Secret')))
  assert.equal(rights.subject, `token:${known.id}`)
  assert.equal(rights.expiresAt, undefined)
})

test('what a token and its policies leave out is not allowed', () => {
  const { known } = madeToken({ policies: ['empty'] })
  const { read, publish } = rightsIn(parseTokenDocument(tokensText([known], { empty: {} })), known)
  assert.deepEqual([read, publish], [[], []])
})

test('a policy may be called like a member of objects', () => {
  const { known } = madeToken({ policies: ['__proto__', 'constructor'] })
  const text = `{"version":1,"policies":{"__proto__":{"read":"all"},"constructor":{}},"tokens":[${JSON.stringify(known)}]}`
  assert.deepEqual(rightsIn(parseTokenDocument(text), known).read, [{}])
  assert.equal(({} as { read?: unknown }).read, undefined)
})

const token = (parts: object) => tokensText([{ ...madeToken().known, ...parts }], { p: { read: 'all' } })

const wrong: [text: string, message: RegExp][] = [
  ['', /^It is not JSON\.$/],
  [`{"tokens": "${canary}`, /^It is not JSON \(line 1 column \d+\)\.$/],
  [`{"version":1,${canary}}`, /^It is not JSON/],
  ['[]', /^It must be an object\.$/],
  ['null', /^It must be an object\.$/],
  ['{}', /^version must be 1\.$/],
  ['{"version":2,"policies":{},"tokens":[]}', /^version must be 1\.$/],
  ['{"version":1,"policies":{}}', /^tokens must be an array\.$/],
  [`{"version":1,"tokens":[],"${canary}":1}`, /^It must have no members beside version, policies, tokens\.$/],
  ['{"version":1,"policies":[],"tokens":[]}', /^policies must be an object\.$/],
  [
    '{"version":1,"policies":{"a b":{"reed":1}},"tokens":[]}',
    /^policies\["a b"\] must have no members beside read, pub/,
  ],
  [
    '{"version":1,"policies":{"p":{"read":"al"}},"tokens":[]}',
    /^policies\["p"\]\.read must be "all" or an array of rules/,
  ],
  ['{"version":1,"policies":{"p":{"read":[{"topic":{}}]}},"tokens":[]}', /^policies\["p"\]\.read\[0\] must have no/],
  ['{"version":1,"tokens":[7]}', /^tokens\[0\] must be an object\.$/],
  [token({ id: canary }), /^tokens\[0\]\.id must be 8 to 32 lower-case letters and digits\.$/],
  [token({ name: '' }), /^tokens\[0\]\.name must be a text\.$/],
  [token({ hash: `spw_0123456789abcdef_${canary}` }), /^tokens\[0\]\.hash must be "sha256:" and 64 hex/],
  [token({ policies: 'p' }), /^tokens\[0\]\.policies must be an array of names\.$/],
  [token({ policies: ['p', 'toString'] }), /^tokens\[0\]\.policies\[1\] must be the name of one of the policies\.$/],
  [token({ createdAt: undefined }), /^tokens\[0\]\.createdAt must be a time such as 2026-11-24T10:00:00Z\.$/],
  [token({ expiresAt: '2026-11-24T10:00:00' }), /^tokens\[0\]\.expiresAt must be a time/],
  [token({ expiresAt: '2026-13-45T10:00:00Z' }), /^tokens\[0\]\.expiresAt must be a time/],
  [token({ expiresAt: null }), /^tokens\[0\]\.expiresAt must be a time/],
  [token({ expires: '2026-11-24T10:00:00Z' }), /^tokens\[0\] must have no members beside id, name/],
  [token({ publish: [{ effect: 'no' }] }), /^tokens\[0\]\.publish\[0\]\.effect must be "allow" or "deny"/],
]

test('a document that is wrong is refused with the field that is, and nothing of what it holds', () => {
  for (const [text, message] of wrong) {
    assert.throws(
      () => parseTokenDocument(text),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, 'INVALID')
        assert.match(error.message, message)
        assert.ok(!everythingIn(error).includes(canary), everythingIn(error))
        return true
      },
      text,
    )
  }
})

test('two tokens of one id are refused', () => {
  const { known } = madeToken()
  assert.throws(() => parseTokenDocument(tokensText([known, known])), /^SpillwayError: tokens\[1\]\.id must differ/)
})
