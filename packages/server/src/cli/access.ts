import { existsSync } from 'node:fs'
import { SpillwayError } from 'spillway'
import type { Authenticator } from '../auth/authenticator.ts'
import { type JwtAlgorithm, jwtAuthenticator } from '../auth/jwt.ts'
import { openKeyFile } from '../auth/key-file.ts'
import { openRemoteKeys } from '../auth/remote-keys.ts'
import { openTokenFile } from '../auth/token-file.ts'
import type { ServerLog } from '../log.ts'
import { type Certificate, openCertificate } from '../tls.ts'
import type { Values } from './command.ts'
import { Failure, UsageError } from './errors.ts'
import { defaultTokenFile } from './token/file.ts'
import { choice } from './values.ts'

/** The options of `serve` that say who comes in, and how the server proves who it is. */
export const accessOptions = {
  auth: {
    type: 'string',
    value: '<way>',
    help: 'Who may do what: "none", everybody all; "tokens", those of a file; "jwt", those of an issuer. Default: none',
  },
  tokens: {
    type: 'string',
    value: '<file>',
    help: 'With --auth tokens: the file that `spillway token` writes. Default: ./spillway-tokens.json',
  },
  'jwt-issuer': { type: 'string', value: '<iss>', help: 'With --auth jwt: what the claim iss must be' },
  'jwt-audience': {
    type: 'string',
    multiple: true,
    value: '<aud>',
    help: 'With --auth jwt: what the claim aud must be or contain; repeatable, one of them is enough',
  },
  'jwt-keys': {
    type: 'string',
    value: '<url|file>',
    help: "With --auth jwt: the issuer's key set (JWKS), an https URL or a file",
  },
  'jwt-algorithm': {
    type: 'string',
    multiple: true,
    value: '<alg>',
    help: 'With --auth jwt: a signature to accept, such as ES256; repeatable. Default: all with public keys',
  },
  'jwt-claim': {
    type: 'string',
    value: '<name>',
    help: 'With --auth jwt: the claim with the rights. Default: spillway',
  },
  'tls-cert': {
    type: 'string',
    value: '<file>',
    help: 'Serve https with this certificate (PEM), which may be replaced at any time',
  },
  'tls-key': { type: 'string', value: '<file>', help: 'The key of --tls-cert (PEM)' },
} as const

type AccessValues = Values<typeof accessOptions>

/** Opens what `--auth` and `--tls-cert` name. Throws `UsageError` and `Failure` that say what is wrong. */
export async function openAccess(
  values: AccessValues,
  log: ServerLog,
): Promise<{ readonly auth: Authenticator | undefined; readonly certificate: Certificate | undefined }> {
  const way = choice('--auth', values.auth ?? 'none', ['none', 'tokens', 'jwt'])
  refuseOthers(values, way)
  const { 'tls-cert': certFile, 'tls-key': keyFile } = values
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new UsageError('--tls-cert and --tls-key go together: give both or none.')
  }
  try {
    const certificate = certFile && keyFile ? await openCertificate({ certFile, keyFile, log }) : undefined
    if (way === 'tokens') return { auth: await openTokens(values.tokens ?? defaultTokenFile, log), certificate }
    return { auth: way === 'jwt' ? await openJwt(values, log) : undefined, certificate }
  } catch (error) {
    if (error instanceof SpillwayError && error.code === 'CONFIG') throw new Failure(error.message, { cause: error })
    throw error
  }
}

function refuseOthers(values: AccessValues, way: string): void {
  for (const name of Object.keys(accessOptions) as (keyof AccessValues)[]) {
    const belongsTo = name === 'tokens' ? 'tokens' : name.startsWith('jwt-') ? 'jwt' : way
    const isGiven = Array.isArray(values[name]) ? values[name].length > 0 : values[name] !== undefined
    if (isGiven && belongsTo !== way) throw new UsageError(`--${name} is for --auth ${belongsTo}.`)
  }
}

async function openTokens(file: string, log: ServerLog): Promise<Authenticator> {
  if (!existsSync(file)) {
    throw new Failure(
      `There is no ${file}. Make a token first: spillway token create --name me --read '*' --publish '*'`,
    )
  }
  return openTokenFile({ file, log })
}

async function openJwt(values: AccessValues, log: ServerLog): Promise<Authenticator> {
  const { 'jwt-issuer': issuer, 'jwt-audience': audience, 'jwt-keys': place, 'jwt-claim': claim } = values
  if (issuer === undefined || audience.length === 0 || place === undefined) {
    throw new UsageError('--auth jwt needs --jwt-issuer, --jwt-audience and --jwt-keys.')
  }
  const isUrl = /^https?:/i.test(place)
  const keys = isUrl ? await openRemoteKeys({ url: place, log }) : await openKeyFile({ file: place, log })
  // What is no algorithm is refused by name.
  const algorithms = values['jwt-algorithm'] as readonly JwtAlgorithm[]
  return jwtAuthenticator({
    issuer,
    audience,
    keys,
    ...(algorithms.length > 0 && { algorithms }),
    ...(claim !== undefined && { claim }),
  })
}
