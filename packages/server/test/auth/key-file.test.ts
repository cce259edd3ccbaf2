import assert from 'node:assert/strict'
import { rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { type KeyFileOptions, openKeyFile } from '../../src/auth/key-file.ts'
import { folder } from '../support/folder.ts'
import { type IssuerKey, issuerKey, keySet } from '../support/issuer.ts'
import { RecordedLog, Recorder } from '../support/recorder.ts'

const one = issuerKey('one')
const two = issuerKey('two')

async function setup(t: TestContext, options: Partial<KeyFileOptions> = {}) {
  const file = path.join(await folder(t), 'keys.json')
  await writeFile(file, keySet(one))
  const log = new RecordedLog()
  const keys = await openKeyFile({ file, log, ...options })
  t.after(() => keys.close())
  const told = new Recorder<string>()
  keys.onChange(() => told.add('told'))
  const find = ({ kid, alg }: IssuerKey) => keys.keyFor({ kid, alg })
  return { file, log, told, find }
}

test('keys come from a file and change with it', async (t) => {
  const { file, told, find } = await setup(t)
  await find(one)
  await assert.rejects(find(two), { code: 'ERR_JWKS_NO_MATCHING_KEY' })
  await writeFile(`${file}.new`, keySet(two))
  await rename(`${file}.new`, file)
  await told.count(1)
  await find(two)
  await assert.rejects(find(one), { code: 'ERR_JWKS_NO_MATCHING_KEY' })
})

test('a file that is no key set, or is gone, leaves the keys as they are', async (t) => {
  const { file, log, told, find } = await setup(t)
  await writeFile(file, '{"keys":"none"}')
  await log.line(/must be a JSON Web Key Set/)
  await rm(file)
  await log.line(/There is no .*keys\.json/)
  await find(one)
  assert.deepEqual(told.items, [])
})

test('a file that cannot be used from the start is an error that names it', async (t) => {
  const dir = await folder(t)
  const file = path.join(dir, 'keys.json')
  await assert.rejects(openKeyFile({ file }), { code: 'CONFIG', message: `There is no ${file}.` })
  await assert.rejects(openKeyFile({ file: dir }), { code: 'CONFIG', message: /cannot be read/ })
  await writeFile(file, '{"keys":[')
  await assert.rejects(openKeyFile({ file }), { code: 'CONFIG', message: /keys\.json cannot be used: It is not JSON/ })
})

test('symmetric keys and private keys of a set are not used', async (t) => {
  const { file, log, find } = await setup(t)
  const secret = { kty: 'oct', k: Buffer.alloc(32).toString('base64url'), kid: 'secret', alg: 'HS256' }
  const privateKey = { ...two.privateKey.export({ format: 'jwk' }), kid: two.kid, alg: two.alg }
  await writeFile(file, JSON.stringify({ keys: [secret, privateKey] }))
  await log.line(/are gone/)
  await assert.rejects(find({ ...one, kid: 'secret', alg: 'HS256' as 'ES256' }), { code: 'ERR_JOSE_NOT_SUPPORTED' })
  await assert.rejects(find(two), { code: 'ERR_JWKS_INVALID' })
})
