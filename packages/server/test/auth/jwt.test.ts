import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { type TestContext, test } from 'node:test'
import { type Rights, SpillwayError } from 'spillway'
import type { Authenticator } from '../../src/auth/authenticator.ts'
import { type JwtOptions, jwtAuthenticator } from '../../src/auth/jwt.ts'
import { openRemoteKeys } from '../../src/auth/remote-keys.ts'
import { ManualClock } from '../support/clock.ts'
import { encode, issuerKey, type KeyServer, keyServer, serving, signed } from '../support/issuer.ts'
import { everythingIn, RecordedLog } from '../support/recorder.ts'

const issuer = 'https://id.example/'
const key = issuerKey('ec-1')
const rsaKey = issuerKey('rsa-1', 'RS256')
const edKey = issuerKey('ed-1', 'EdDSA')
const canary = 'canary-d3adb33f'

interface Setup {
  readonly authenticator: Authenticator
  readonly clock: ManualClock
  readonly server: KeyServer
  readonly log: RecordedLog
  /** Claims that are all right. */
  readonly claims: Record<string, unknown>
}

async function setup(t: TestContext, options: Partial<JwtOptions> = {}): Promise<Setup> {
  const clock = new ManualClock()
  const log = new RecordedLog()
  const server = await keyServer(t, serving(key, rsaKey, edKey))
  const keys = await openRemoteKeys({ url: server.url, clock, log })
  const authenticator = jwtAuthenticator({ issuer, audience: 'spillway', keys, clock, ...options })
  t.after(() => authenticator.close())
  const now = clock.now() / 1000
  const claims = {
    iss: issuer,
    aud: 'spillway',
    sub: 'alice',
    nbf: now - 60,
    exp: now + 600,
    spillway: { read: 'all', publish: [{ topics: { Order: ['*'] } }] },
  }
  return { authenticator, clock, server, log, claims }
}

async function refusal(authenticator: Authenticator, token: string): Promise<SpillwayError> {
  try {
    await authenticator.rightsOf(token)
  } catch (error) {
    assert.ok(error instanceof SpillwayError, String(error))
    return error
  }
  throw new Error(`Accepted: ${token.slice(0, 200)}`)
}

test('a token gives the rights of its claim until it expires, under the name of its issuer', async (t) => {
  const { authenticator, claims, clock } = await setup(t)
  for (const good of [key, rsaKey, edKey]) {
    const rights: Rights = await authenticator.rightsOf(signed(good, claims))
    assert.deepEqual(rights, {
      read: 'all',
      publish: [{ topics: { Order: ['*'] } }],
      subject: 'https://id.example/ alice',
      expiresAt: clock.now() + 600_000,
    })
  }
})

test('several audiences, the types of access tokens and fractions of a second are understood', async (t) => {
  const { authenticator, claims, clock } = await setup(t, { audience: ['spillway', 'events'] })
  await authenticator.rightsOf(signed(key, { ...claims, aud: ['other', 'events'] }))
  for (const typ of ['JWT', 'jwt', 'at+jwt', 'application/at+jwt']) {
    await authenticator.rightsOf(signed(key, claims, { typ }))
  }
  const exp = clock.now() / 1000 + 1.5
  assert.equal((await authenticator.rightsOf(signed(key, { ...claims, exp }))).expiresAt, clock.now() + 1500)
})

test('the claim may have another name, and rights that it leaves out are none', async (t) => {
  const { authenticator, claims } = await setup(t, { claim: 'https://example/rights' })
  const rights = await authenticator.rightsOf(signed(key, { ...claims, 'https://example/rights': { read: 'all' } }))
  assert.deepEqual([rights.read, rights.publish], ['all', []])
})

test('a token without a claim about rights, or with one that is none, is forbidden and the cause says why', async (t) => {
  const { authenticator, claims } = await setup(t)
  const cases: [claim: unknown, cause: RegExp][] = [
    [undefined, /no claim spillway/],
    [null, /spillway must be an object/],
    ['all', /spillway must be an object/],
    [{ raed: 'all' }, /no members beside read, publish/],
    [{ read: 'everything' }, /spillway\.read must be "all" or an array/],
    [{ read: [{ topic: 'Order' }] }, /spillway\.read\[0\] must have no members beside/],
    [{ publish: [{ topics: { Order: '*' } }] }, /spillway\.publish\[0\]\.topics/],
    [JSON.parse('{"read":[{"__proto__":{"topics":{}}}]}'), /no members beside/],
  ]
  for (const [claim, cause] of cases) {
    const error = await refusal(authenticator, signed(key, { ...claims, spillway: claim }))
    assert.equal(error.code, 'FORBIDDEN')
    assert.equal(error.message, 'The token gives no rights here.')
    assert.match((error.cause as Error).message, cause)
  }
  for (const claim of ['__proto__', 'constructor', 'toString']) {
    const odd = await setup(t, { claim })
    assert.equal((await refusal(odd.authenticator, signed(key, claims))).code, 'FORBIDDEN')
  }
})

/** Tokens that somebody tries, made from right claims, and what the audit log says of them. */
const attacks: Record<string, (claims: Record<string, unknown>) => [token: string, cause: RegExp]> = {
  ...Object.fromEntries(
    ['none', 'None', 'nOnE', 'NONE'].flatMap((alg) => [
      [`alg ${alg}, not signed`, (claims) => [`${encode({ alg })}.${encode(claims)}.`, /alg is not one/]],
      [`alg ${alg}, signed`, (claims) => [signed(key, claims, { alg }), /alg is not one/]],
    ]),
  ),
  ...Object.fromEntries(
    (['pem', 'der', 'jwk'] as const).map((form) => [
      `HS256 with the RSA public key as ${form}`,
      (claims) => {
        const input = `${encode({ alg: 'HS256', kid: rsaKey.kid })}.${encode(claims)}`
        const secret =
          form === 'jwk' ? JSON.stringify(rsaKey.jwk) : rsaKey.publicKey.export({ type: 'spki', format: form as 'pem' })
        return [`${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`, /alg is not one/]
      },
    ]),
  ),
  'HS256 with no secret': (claims) => {
    const input = `${encode({ alg: 'HS256' })}.${encode(claims)}`
    return [`${input}.${createHmac('sha256', '').update(input).digest('base64url')}`, /alg is not one/]
  },
  'no alg': (claims) => [signed(key, claims, { alg: undefined }), /no well-formed JWS/],
  'alg of another type': (claims) => [signed(key, claims, { alg: ['ES256'] }), /no well-formed JWS/],
  'alg of another key': (claims) => [signed(key, claims, { alg: 'RS256' }), /No key of the issuer fits/],
  'kid of another key': (claims) => [signed(key, claims, { kid: edKey.kid }), /No key of the issuer fits/],
  'kid that is a path': (claims) => [signed(key, claims, { kid: '../../../../dev/null' }), /No key of the issuer fits/],
  'kid that is SQL': (claims) => [signed(key, claims, { kid: "x' UNION SELECT 'k' --" }), /No key of the issuer fits/],
  'kid that is a member of objects': (claims) => [signed(key, claims, { kid: '__proto__' }), /No key of the issuer/],
  'kid that is huge': (claims) => [signed(key, claims, { kid: 'k'.repeat(5000) }), /kid is no text of at most/],
  'kid that is no text': (claims) => [signed(key, claims, { kid: { $ne: '' } }), /kid is no text/],
  'kid that is null': (claims) => [signed(key, claims, { kid: null }), /kid is no text/],
  'no kid and the key of a stranger': (claims) => {
    return [signed(issuerKey('stranger', 'RS256'), claims, { kid: undefined }), /signature is wrong/]
  },
  ...Object.fromEntries(
    ['http://127.0.0.1:9/jwks', 'file:///etc/passwd', 'http://169.254.169.254/', 'http://[::1]:9/'].flatMap((url) => [
      [`jku ${url}`, (claims) => [signed(key, claims, { jku: url }), /key of its own \(jku\)/]],
      [`x5u ${url}`, (claims) => [signed(key, claims, { x5u: url }), /key of its own \(x5u\)/]],
    ]),
  ),
  'jwk of the attacker': (claims) => {
    const own = issuerKey(key.kid)
    return [signed(own, claims, { jwk: own.jwk }), /key of its own \(jwk\)/]
  },
  'x5c of the attacker': (claims) => [signed(key, claims, { x5c: ['AAAA'] }), /key of its own \(x5c\)/],
  'a key of the attacker under a known kid': (claims) => [signed(issuerKey(key.kid), claims), /signature is wrong/],
  'typ of a logout token': (claims) => [signed(key, claims, { typ: 'logout+jwt' }), /typ is neither/],
  'typ that is no text': (claims) => [signed(key, claims, { typ: 7 }), /typ is neither/],
  'crit that nobody knows': (claims) => [
    signed(key, claims, { crit: [canary], [canary]: 1 }),
    /ERR_JOSE_NOT_SUPPORTED/,
  ],
  'payload that is not encoded': (claims) => [signed(key, claims, { crit: ['b64'], b64: false }), /cannot be|no|wrong/],
  'aud of another': (claims) => [signed(key, { ...claims, aud: 'other' }), /claim aud does not hold/],
  'aud that only begins so': (claims) => [signed(key, { ...claims, aud: ['spillway2', 'xspillway'] }), /claim aud/],
  'aud that is an object': (claims) => [signed(key, { ...claims, aud: { spillway: 1 } }), /claim aud/],
  'no aud': (claims) => [signed(key, { ...claims, aud: undefined }), /claim aud is missing/],
  'iss of another': (claims) => [signed(key, { ...claims, iss: 'https://id.example.evil/' }), /claim iss does not/],
  'iss that is a list': (claims) => [signed(key, { ...claims, iss: [issuer] }), /claim iss does not hold/],
  'no iss': (claims) => [signed(key, { ...claims, iss: undefined }), /claim iss is missing/],
  'exp that is a text': (claims) => [signed(key, { ...claims, exp: '9999999999' }), /claim exp is no number/],
  'exp of 1e20': (claims) => [signed(key, { ...claims, exp: 1e20 }), /claim exp is no date/],
  'exp below zero': (claims) => [signed(key, { ...claims, exp: -1 }), /claim exp does not hold/],
  'exp of null': (claims) => [signed(key, { ...claims, exp: null }), /claim exp is no number/],
  'exp a second ago': (claims) => [signed(key, { ...claims, exp: Date.UTC(2026, 10, 24) / 1000 - 1 }), /exp does not/],
  'exp now': (claims) => [signed(key, { ...claims, exp: Date.UTC(2026, 10, 24) / 1000 }), /claim exp does not hold/],
  'no exp': (claims) => [signed(key, { ...claims, exp: undefined }), /claim exp is missing/],
  'nbf ahead': (claims) => [signed(key, { ...claims, nbf: (claims.nbf as number) + 66 }), /claim nbf does not hold/],
  'nbf of 1e20': (claims) => [signed(key, { ...claims, nbf: 1e20 }), /claim nbf does not hold/],
  'nbf that is a text': (claims) => [signed(key, { ...claims, nbf: '0' }), /claim nbf is no number/],
  'nbf of minus 1e20': (claims) => [signed(key, { ...claims, nbf: -1e20 }), /claim nbf is no date/],
  'no nbf': (claims) => [signed(key, { ...claims, nbf: undefined }), /claim nbf is missing/],
  'no sub': (claims) => [signed(key, { ...claims, sub: undefined }), /claim sub is missing/],
  'sub that is empty': (claims) => [signed(key, { ...claims, sub: '' }), /claim sub is no text/],
  'sub that is a list': (claims) => [signed(key, { ...claims, sub: ['alice'] }), /claim sub is no text/],
  'an empty signature': (claims) => [signed(key, claims).replace(/[^.]*$/, ''), /signature is wrong/],
  'a signature of zeros': (claims) => [signed(key, claims).replace(/[^.]*$/, 'A'.repeat(86)), /signature is wrong/],
  'a signature that was cut': (claims) => [signed(key, claims).slice(0, -20), /signature is wrong|well-formed/],
  'claims that were changed': (claims) => {
    const [header, , signature] = signed(key, claims).split('.')
    return [`${header}.${encode({ ...claims, sub: 'admin' })}.${signature}`, /signature is wrong/]
  },
  'claims that are a list': () => [signed(key, []), /claims are no JSON object/],
  'claims that are null': () => [signed(key, null), /claims are no JSON object/],
  'a megabyte': (claims) => [signed(key, { ...claims, filler: 'x'.repeat(1 << 20) }), /more than 8192 characters/],
  'a megabyte of dots': () => ['.'.repeat(1 << 20), /more than 8192 characters/],
  'a JWE': () => ['a.b.c.d.e', /no well-formed JWS/],
  nothing: () => ['', /no well-formed JWS/],
  'a token of the file': () => [`spw_0123456789abcdef_${'x'.repeat(43)}`, /no well-formed JWS/],
  'a null byte': (claims) => [`\0${signed(key, claims)}`, /no well-formed JWS/],
  'white space': (claims) => [signed(key, claims).replaceAll('.', '.\n '), /no well-formed JWS/],
  padding: (claims) => [`${signed(key, claims)}==`, /no well-formed JWS/],
}

test('whatever is wrong with a token, strangers get one answer, the log the reason, and no keys are fetched', async (t) => {
  const { authenticator, server, claims } = await setup(t)
  for (const [name, make] of Object.entries(attacks)) {
    const [token, cause] = make({ ...claims, email: canary })
    const error = await refusal(authenticator, token)
    assert.equal(error.code, 'UNAUTHORIZED', name)
    assert.equal(error.message, 'The token is not valid.', name)
    assert.match((error.cause as Error).message, cause, name)
    assertNothingOf(token, error, name)
  }
  assert.deepEqual(server.requests.items, ['/keys'], 'only the first fetch')
})

test('every prefix and every flipped character of a token is refused', async (t) => {
  const { authenticator, claims } = await setup(t)
  const token = signed(key, claims)
  for (let at = 0; at < token.length; at++) {
    assert.equal((await refusal(authenticator, token.slice(0, at))).code, 'UNAUTHORIZED')
    // Of the last character only two bits belong to the signature.
    const other = at === token.length - 1 ? 'gwQA'.replace(token[at] ?? '', '')[0] : token[at] === 'A' ? 'B' : 'A'
    const changed = token.slice(0, at) + other + token.slice(at + 1)
    assert.equal((await refusal(authenticator, changed)).code, 'UNAUTHORIZED', `character ${at}`)
  }
})

test('a token is good a little before its nbf and never after its exp', async (t) => {
  const { authenticator, claims, clock } = await setup(t)
  const now = clock.now() / 1000
  await authenticator.rightsOf(signed(key, { ...claims, nbf: now + 5 }))
  const token = signed(key, { ...claims, exp: now + 3 })
  clock.move(2999)
  await authenticator.rightsOf(token)
  clock.move(1)
  assert.equal((await refusal(authenticator, token)).code, 'UNAUTHORIZED')
})

test('only the algorithms that were allowed are', async (t) => {
  const { authenticator, claims } = await setup(t, { algorithms: ['RS256'] })
  await authenticator.rightsOf(signed(rsaKey, claims))
  assert.match(everythingIn(await refusal(authenticator, signed(key, claims))), /alg is not one of those allowed/)
})

test('options that would make tokens unsafe are refused', async (t) => {
  const wrong: [options: object, message: RegExp][] = [
    [{ algorithms: ['HS256'] }, /algorithms .* must be one or more of RS256/],
    [{ algorithms: ['none'] }, /algorithms/],
    [{ algorithms: [] }, /algorithms/],
    [{ issuer: '' }, /issuer/],
    [{ issuer: 'https://id.example/ x' }, /issuer .* without spaces/],
    [{ audience: [] }, /audience/],
    [{ audience: '' }, /audience/],
    [{ clockTolerance: 3600 }, /clockTolerance .* from 0 to 60/],
    [{ clockTolerance: Number.NaN }, /clockTolerance/],
  ]
  for (const [options, message] of wrong) {
    await assert.rejects(setup(t, options as Partial<JwtOptions>), { code: 'CONFIG', message })
  }
})

test('a token without a kid is checked by the one key that fits', async (t) => {
  const { authenticator, claims, server, clock, log } = await setup(t)
  await authenticator.rightsOf(signed(key, claims, { kid: undefined }))
  server.answer = serving(key, issuerKey('ec-2'))
  clock.move(300_000)
  const fresh = { ...claims, exp: clock.now() / 1000 + 60 }
  await log.line(/Keys of the issuer are gone/)
  const { cause } = await refusal(authenticator, signed(key, fresh, { kid: undefined }))
  assert.match(String(cause), /several keys of the issuer fit/)
})

function assertNothingOf(token: string, error: unknown, name: string): void {
  const shown = everythingIn(error)
  assert.ok(!shown.includes(canary), `${name}: ${shown}`)
  for (const part of token.split('.')) assert.ok(part.length < 12 || !shown.includes(part), `${name}: ${shown}`)
}
