import { type CompactJWSHeaderParameters, errors, type JWTPayload, jwtVerify } from 'jose'
import { type Clock, Permit, type Rights, type Rules, SpillwayError, systemClock } from 'spillway'
import { type Authenticator, notValid } from './authenticator.ts'
import { objectOf } from './checked-file.ts'
import type { KeySource } from './key-set.ts'

/** What tokens may be signed with. Public keys only: whoever can check a token with a shared key can make one. */
export type JwtAlgorithm = (typeof jwtAlgorithms)[number]

export const jwtAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const

export interface JwtOptions {
  /** What `iss` must be. */
  readonly issuer: string
  /** What `aud` must be or contain; one of these. */
  readonly audience: string | readonly string[]
  /** Closed with the authenticator. */
  readonly keys: KeySource
  /** Default: all of {@link jwtAlgorithms}. */
  readonly algorithms?: readonly JwtAlgorithm[]
  /** The claim that says what the owner may do, `{"read"?, "publish"?}`. Default `spillway`. */
  readonly claim?: string
  /**
   * Seconds by which the issuer's clock may be ahead: a token is good so long before its `nbf`. It is never good after its
   * `exp`, when streams that live on it end. Default 5.
   */
  readonly clockTolerance?: number
  readonly clock?: Clock
}

/** Characters of a token. What is longer is refused before anything of it is read. */
const maxLength = 8192
const maxKeyId = 256
/** [RFC 7515] Three parts of unpadded base64url. */
const pattern = /^[\w-]+\.[\w-]+\.[\w-]*$/
const notWellFormed = 'It is no well-formed JWS.'

/**
 * JSON Web Tokens of one issuer, checked as RFC 8725 and RFC 9068 advise: `iss`, `aud`, `exp`, `nbf` and `sub` are required.
 * Throws `CONFIG` for an option that would make it unsafe.
 */
export function jwtAuthenticator({
  issuer,
  audience,
  keys,
  algorithms = jwtAlgorithms,
  claim = 'spillway',
  clockTolerance = 5,
  clock = systemClock,
}: JwtOptions): Authenticator {
  const audiences = typeof audience === 'string' ? [audience] : [...audience]
  checkOptions(issuer, audiences, algorithms, clockTolerance)
  const getKey = (header: CompactJWSHeaderParameters) => {
    checkHeader(header)
    return keys.keyFor(header)
  }
  return {
    async rightsOf(token) {
      if (token.length > maxLength) throw notValid(`It has more than ${maxLength} characters.`)
      // jose passes over padding and white space.
      if (!pattern.test(token)) throw notValid(notWellFormed)
      const now = clock.now()
      let claims: JWTPayload
      try {
        const { payload } = await jwtVerify(token, getKey, {
          algorithms: [...algorithms],
          issuer,
          audience: audiences,
          requiredClaims: ['exp', 'nbf', 'sub'],
          clockTolerance,
          currentDate: new Date(now),
        })
        claims = payload
      } catch (error) {
        throw asRefusal(error)
      }
      checkTimes(claims, now)
      return rightsFrom(claims, issuer, claim)
    },
    onChange: (listener) => keys.onChange(() => listener(undefined)),
    close: () => keys.close(),
  }
}

function checkOptions(
  issuer: string,
  audiences: readonly string[],
  algorithms: readonly string[],
  clockTolerance: number,
): void {
  // Subjects are `<iss> <sub>`: a space in the first would let two issuers mean the same by different parts.
  if (!/^[^\s]+$/.test(issuer)) throw wrong('issuer', 'a text without spaces')
  if (audiences.length === 0 || audiences.includes('')) throw wrong('audience', 'one or more texts')
  if (algorithms.length === 0 || algorithms.some((name) => !(jwtAlgorithms as readonly string[]).includes(name))) {
    throw wrong('algorithms', `one or more of ${jwtAlgorithms.join(', ')}`)
  }
  if (!(clockTolerance >= 0 && clockTolerance <= 60)) throw wrong('clockTolerance', 'seconds from 0 to 60')
}

function wrong(option: string, expected: string): SpillwayError {
  return new SpillwayError('CONFIG', `The ${option} of JSON Web Tokens must be ${expected}.`)
}

/** Why a header is refused before a key is looked for. */
class BadHeader extends Error {}

const typePattern = /^(application\/)?(jwt|at\+jwt)$/i

function checkHeader(header: CompactJWSHeaderParameters): void {
  const { typ, kid } = header as { typ?: unknown; kid?: unknown }
  // Tokens of other kinds by the same issuer, such as logout tokens, must not pass for access tokens.
  if (typ !== undefined && !(typeof typ === 'string' && typePattern.test(typ))) {
    throw new BadHeader('Its typ is neither JWT nor at+jwt.')
  }
  if (kid !== undefined && !(typeof kid === 'string' && kid.length <= maxKeyId)) {
    throw new BadHeader(`Its kid is no text of at most ${maxKeyId} characters.`)
  }
  for (const name of ['jwk', 'jku', 'x5c', 'x5u']) {
    if (Object.hasOwn(header, name)) throw new BadHeader(`It brings a key of its own (${name}).`)
  }
}

const reasons: ReadonlyMap<string, string> = new Map([
  ['ERR_JOSE_ALG_NOT_ALLOWED', 'Its alg is not one of those allowed.'],
  ['ERR_JWS_INVALID', notWellFormed],
  ['ERR_JWT_INVALID', 'Its claims are no JSON object.'],
  ['ERR_JWS_SIGNATURE_VERIFICATION_FAILED', 'Its signature is wrong.'],
  ['ERR_JWKS_NO_MATCHING_KEY', 'No key of the issuer fits its kid and alg.'],
  ['ERR_JWKS_MULTIPLE_MATCHING_KEYS', 'It has no kid, and several keys of the issuer fit.'],
])

/** Never jose's error itself: it carries the claims, and some messages quote the header. */
function asRefusal(error: unknown): SpillwayError {
  if (error instanceof SpillwayError) return error
  if (error instanceof BadHeader) return notValid(error.message)
  if (error instanceof errors.JWTClaimValidationFailed || error instanceof errors.JWTExpired) {
    const { claim, reason } = error
    const problem = reason === 'missing' ? 'is missing' : reason === 'invalid' ? 'is no number' : 'does not hold'
    return notValid(`Its claim ${claim} ${problem}.`)
  }
  const { code = '', name = '' } = error as { code?: string; name?: string }
  return notValid(reasons.get(code) ?? `It cannot be checked (${code || name}).`)
}

/** The last second that a Date can hold. */
const latest = 8.64e12

function checkTimes({ exp, nbf }: JWTPayload, now: number): void {
  for (const [name, value] of Object.entries({ exp, nbf })) {
    if (value === undefined || !(value >= 0 && value <= latest)) throw notValid(`Its claim ${name} is no date.`)
  }
  if (exp !== undefined && exp * 1000 <= now) throw notValid('Its claim exp does not hold.')
}

const rightsMembers = new Set(['read', 'publish'])

function rightsFrom(claims: JWTPayload, issuer: string, claim: string): Rights {
  const { sub, exp = 0 } = claims
  if (typeof sub !== 'string' || sub === '') throw notValid('Its claim sub is no text.')
  const { read, publish } = rulesOf(claims, claim)
  return { read, publish, subject: `${issuer} ${sub}`, expiresAt: Math.floor(exp * 1000) }
}

function rulesOf(claims: JWTPayload, claim: string): { readonly read: Rules; readonly publish: Rules } {
  if (!Object.hasOwn(claims, claim)) throw noRights(`It has no claim ${claim}.`)
  try {
    const { read = [], publish = [] } = objectOf(claim, claims[claim], rightsMembers) as Partial<Rights>
    new Permit(`${claim}.read`, read)
    new Permit(`${claim}.publish`, publish)
    return { read, publish }
  } catch (error) {
    throw noRights((error as Error).message)
  }
}

function noRights(reason: string): SpillwayError {
  return new SpillwayError('FORBIDDEN', 'The token gives no rights here.', { cause: new Error(reason) })
}
