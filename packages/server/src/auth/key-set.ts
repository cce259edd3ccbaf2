import { type CryptoKey, createLocalJWKSet, type JSONWebKeySet, type JWSHeaderParameters, type LocalJWKSet } from 'jose'
import { invalidField, parseJson } from './checked-file.ts'

/** Where the keys of an issuer come from. Nothing in a token changes where that is. */
export interface KeySource {
  /** The key that a token's header asks for. Rejects with jose's errors, and with `UNREACHABLE` while there are no keys. */
  keyFor(header: JWSHeaderParameters): Promise<CryptoKey>
  /** Tells that a key is not good any more. Gives back the undo. */
  onChange(listener: () => void): () => void
  close(): Promise<void>
}

/** A JSON Web Key Set of public keys. */
export class KeySet {
  readonly #find: LocalJWKSet
  readonly #ids: ReadonlySet<string | undefined>
  readonly #keys: ReadonlySet<string>

  /** Throws `INVALID` for what is none. */
  static parse(text: string): KeySet {
    const value = parseJson(text)
    try {
      return new KeySet(value as JSONWebKeySet)
    } catch {
      throw invalidField('It', 'be a JSON Web Key Set, {"keys":[…]}')
    }
  }

  private constructor(set: JSONWebKeySet) {
    this.#find = createLocalJWKSet(set)
    this.#ids = new Set(set.keys.map(({ kid }) => kid))
    this.#keys = new Set(set.keys.map((key) => JSON.stringify(Object.entries(key).sort())))
  }

  has(kid: string): boolean {
    return this.#ids.has(kid)
  }

  /** Never a symmetric key: for such algorithms a public key would be a password that everybody knows. */
  find(header: JWSHeaderParameters): Promise<CryptoKey> {
    return this.#find(header)
  }

  /** Whether each key of `other` is here too. */
  covers(other: KeySet): boolean {
    return [...other.#keys].every((key) => this.#keys.has(key))
  }
}
