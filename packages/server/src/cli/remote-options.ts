import { Refused, type Remote, Unreachable } from '../remote.ts'
import { Failure, quoted, UsageError } from './errors.ts'

/** The option of every command that talks to a server. */
export const remoteOptions: {
  readonly url: { readonly type: 'string'; readonly value: string; readonly help: string }
} = {
  url: {
    type: 'string',
    value: '<url>',
    help: 'The server. Default: $SPILLWAY_URL, or http://127.0.0.1:4747',
  },
}

/** How a token gets in. Not as an option: other users of a machine see the arguments of a process. */
export const tokenNote = 'A token for the server comes from the environment only, as SPILLWAY_TOKEN.'

/** The server that an option, the environment or the default names. */
export function remoteOf(option: string | undefined, env: NodeJS.ProcessEnv = process.env): Remote {
  const [source, text] =
    option === undefined && env.SPILLWAY_URL ? ['SPILLWAY_URL', env.SPILLWAY_URL] : ['--url', option]
  const url = urlOf(source, text ?? 'http://127.0.0.1:4747')
  return { url, token: tokenIn(env) }
}

function tokenIn({ SPILLWAY_TOKEN }: NodeJS.ProcessEnv): string | undefined {
  const token = SPILLWAY_TOKEN?.trim() || undefined
  // Not left to what sends it, whose error would show it.
  if (token === undefined || /^[\x21-\x7e]+$/.test(token)) return token
  throw new UsageError('SPILLWAY_TOKEN must be one token, of ASCII characters without spaces.')
}

function urlOf(source: string, text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    throw new UsageError(`${source} must be a URL such as http://127.0.0.1:4747, got ${withoutSecrets(text)}.`)
  if (url.username || url.password)
    throw new UsageError(`${source} must not hold a name or password. Put a token into SPILLWAY_TOKEN.`)
  if (url.search || url.hash)
    throw new UsageError(`${source} must have no query or fragment, got ${withoutSecrets(text)}.`)
  if (!url.pathname.endsWith('/')) url.pathname += '/'
  return url
}

/** A URL that may be none, as it may be shown: passwords stand before an @, tokens in a query. */
function withoutSecrets(text: string): string {
  return quoted(text.replace(/^.*@/s, '…@').replace(/[?#].*$/s, '?…'))
}

/** An error of the server or of the way to it, as a command ends with it. */
export function asFailure(error: unknown): unknown {
  if (error instanceof Unreachable) {
    const advice = 'Is `spillway serve` running there? --url or SPILLWAY_URL names another server.'
    return new Failure(`Cannot reach ${error.message}. ${advice}`, { cause: error })
  }
  if (error instanceof Refused) return new Failure(error.message, { cause: error })
  return error
}
