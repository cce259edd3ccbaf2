import { type Rights, SpillwayError } from 'spillway'

/** Knows tokens: who shows them, and what they may do. */
export interface Authenticator {
  /**
   * What the owner of `token` may do now. Throws or rejects with `UNAUTHORIZED` for a token it does not know, with
   * `FORBIDDEN` for one that gives no rights, and with `UNREACHABLE` while it cannot tell.
   */
  rightsOf(token: string): Rights | Promise<Rights>
  /** Tells whose rights may have changed; `undefined`: anybody's. Gives back the undo. */
  onChange(listener: (subject: string | undefined) => void): () => void
  /** Ends what watches files and fetches keys. */
  close(): Promise<void>
}

/**
 * The one refusal of every token that is not good: strangers learn nothing from it. `reason` goes into the cause, for the
 * audit log, and must hold nothing of the token that could not stand there.
 */
export function notValid(reason: string): SpillwayError {
  return new SpillwayError('UNAUTHORIZED', 'The token is not valid.', { cause: new Error(reason) })
}
