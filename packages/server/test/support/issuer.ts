import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import { Recorder } from './recorder.ts'

/** A key of an issuer. */
export interface IssuerKey {
  readonly kid: string
  readonly alg: 'RS256' | 'ES256' | 'EdDSA'
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
  /** As it stands in a key set. */
  readonly jwk: object
}

export function issuerKey(kid: string, alg: IssuerKey['alg'] = 'ES256'): IssuerKey {
  const { publicKey, privateKey } = pairFor(alg)
  return { kid, alg, publicKey, privateKey, jwk: { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' } }
}

function pairFor(alg: IssuerKey['alg']): { publicKey: KeyObject; privateKey: KeyObject } {
  if (alg === 'RS256') return generateKeyPairSync('rsa', { modulusLength: 2048 })
  if (alg === 'ES256') return generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return generateKeyPairSync('ed25519')
}

export const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A token with this header and these claims, whatever they are, rightly signed by `key`. */
export function signed(key: IssuerKey, claims: unknown, header: object = {}): string {
  const input = `${encode({ alg: key.alg, kid: key.kid, ...header })}.${encode(claims)}`
  const hash = key.alg === 'EdDSA' ? null : 'sha256'
  const signature = sign(hash, Buffer.from(input), { key: key.privateKey, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

export const keySet = (...keys: IssuerKey[]): string => JSON.stringify({ keys: keys.map(({ jwk }) => jwk) })

type Answer = (response: ServerResponse, request: IncomingMessage) => void

/** Serves a key set over HTTP. */
export interface KeyServer {
  readonly url: string
  /** The paths that were asked for. */
  readonly requests: Recorder<string>
  /** What is answered from now on. */
  answer: Answer
}

export async function keyServer(t: TestContext, answer: Answer): Promise<KeyServer> {
  const requests = new Recorder<string>()
  const server = createServer((request, response) => {
    requests.add(request.url ?? '')
    keys.answer(response, request)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  const keys = { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/keys`, requests, answer }
  return keys
}

export const serving =
  (...keys: IssuerKey[]): Answer =>
  (response) =>
    response.end(keySet(...keys))
