import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'

/** A token when it is made. Only its owner may see `text`; `hash` is what is kept. */
export interface NewToken {
  readonly id: string
  readonly text: string
  readonly hash: string
}

/** `spw_<id>_<secret>`: the id finds what is known of a token, the secret proves it. */
const pattern = /^spw_([0-9a-z]{8,32})_([\w-]{43})$/
const hashPattern = /^sha256:([0-9a-f]{64})$/

/** Whether `text` can be the id of a token. */
export function isTokenId(text: string): boolean {
  return /^[0-9a-z]{8,32}$/.test(text)
}

export function newToken(): NewToken {
  const id = randomBytes(8).toString('hex')
  const secret = randomBytes(32).toString('base64url')
  return { id, text: `spw_${id}_${secret}`, hash: `sha256:${digestOf(secret).toString('hex')}` }
}

/** The parts of a token, if it is written like one. */
export function tokenParts(text: string): { readonly id: string; readonly secret: string } | undefined {
  const [, id, secret] = pattern.exec(text) ?? []
  return id === undefined || secret === undefined ? undefined : { id, secret }
}

/** The digest that a `hash` writes; `undefined` if it is none. */
export function parseHash(hash: string): Buffer | undefined {
  const [, digits] = hashPattern.exec(hash) ?? []
  return digits === undefined ? undefined : Buffer.from(digits, 'hex')
}

/** Whether `digest` is that of `secret`. Without a digest it is not, which takes as long to find out. */
export function isSecretOf(digest: Buffer | undefined, secret: string): boolean {
  return timingSafeEqual(digestOf(secret), digest ?? nobody) && digest !== undefined
}

const nobody = Buffer.alloc(32)

// Salts and slow hashes protect what people choose. Of 256 random bits nobody can try a noticeable part.
function digestOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest()
}
