import assert from 'node:assert/strict'
import crypto, { createHash } from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { type TestContext, test } from 'node:test'
import { isSecretOf, newToken, parseHash, tokenParts } from '../../src/auth/secret.ts'

test('a token holds its id and 256 random bits, and its hash is the SHA-256 of the secret', () => {
  const { id, text, hash } = newToken()
  const secret = text.slice(`spw_${id}_`.length)
  assert.equal(Buffer.from(secret, 'base64url').length, 32)
  assert.deepEqual(tokenParts(text), { id, secret })
  assert.equal(hash, `sha256:${createHash('sha256').update(secret).digest('hex')}`)
  assert.ok(isSecretOf(parseHash(hash), secret))
  const others = Array.from({ length: 1000 }, newToken)
  assert.equal(new Set(others.flatMap((token) => [token.id, token.text])).size, 2000)
})

test('what is not written like a token has no parts', () => {
  const { id, text } = newToken()
  const secret = text.slice(-43)
  const wrong = ['', id, secret, `${text}x`, ` ${text}`, `${text}\n`, text.slice(0, -1), text.toUpperCase()]
  for (const other of [...wrong, `spw__${secret}`, `spw_../x_${secret}`, `spw_${id}_${'é'.repeat(43)}`]) {
    assert.equal(tokenParts(other), undefined, other)
  }
})

test('another secret is refused, and so is every secret where no token is known', () => {
  const { hash, text } = newToken()
  const secret = text.slice(-43)
  assert.ok(!isSecretOf(parseHash(hash), newToken().text.slice(-43)))
  assert.ok(!isSecretOf(parseHash(hash), secret.slice(0, -1)))
  assert.ok(!isSecretOf(parseHash(hash), ''))
  assert.ok(!isSecretOf(undefined, secret))
  assert.ok(!isSecretOf(undefined, ''))
})

test('every comparison is one of whole digests in constant time, whether the token is known or not', (t) => {
  const compared = mockCompare(t)
  const { hash, text } = newToken()
  isSecretOf(parseHash(hash), text.slice(-43))
  isSecretOf(parseHash(hash), newToken().text.slice(-43))
  isSecretOf(undefined, text.slice(-43))
  isSecretOf(undefined, '')
  assert.deepEqual(
    compared().map((digests) => digests.map(({ byteLength }) => byteLength)),
    Array.from({ length: 4 }, () => [32, 32]),
  )
})

test('a hash is of one form only', () => {
  const digits = 'ab'.repeat(32)
  assert.ok(parseHash(`sha256:${digits}`))
  for (const wrong of [
    '',
    digits,
    `sha256:${digits.slice(1)}`,
    `sha256:${digits}0`,
    `SHA256:${digits}`,
    `md5:${digits}`,
  ]) {
    assert.equal(parseHash(wrong), undefined, wrong)
  }
})

/** Gives what `timingSafeEqual` was called with. */
function mockCompare(t: TestContext): () => { byteLength: number }[][] {
  const compare = t.mock.method(crypto, 'timingSafeEqual')
  syncBuiltinESMExports()
  t.after(() => {
    t.mock.restoreAll()
    syncBuiltinESMExports()
  })
  return () => compare.mock.calls.map(({ arguments: digests }) => digests)
}
