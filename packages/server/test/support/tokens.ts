import { type NewToken, newToken } from '../../src/auth/secret.ts'
import type { KnownToken, Policy } from '../../src/auth/token-document.ts'

/** A token, and what a file of tokens says of it. */
export function madeToken(parts: Partial<KnownToken> = {}): { token: NewToken; known: KnownToken } {
  const token = newToken()
  const { id, hash } = token
  return { token, known: { id, name: 'test', hash, createdAt: '2026-11-24T10:00:00Z', ...parts } }
}

/** The text of a file of tokens. */
export function tokensText(tokens: readonly object[], policies: Readonly<Record<string, Policy>> = {}): string {
  return JSON.stringify({ version: 1, policies, tokens })
}
