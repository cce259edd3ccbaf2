import { SpillwayError } from 'spillway'

/** Where servers of NATS are, and what the url says of who asks. */
export interface NatsPlace {
  readonly servers: readonly string[]
  /** Whether nothing must be sent that is not encrypted. */
  readonly isEncrypted: boolean
  readonly user?: string | undefined
  readonly password?: string | undefined
  readonly token?: string | undefined
  /** For people: without secrets. */
  readonly shown: string
}

const defaultPort = '4222'
const needed = 'nats://host:4222, or several of these joined by commas; tls:// encrypts'

/** Reads `nats://user:password@host:4222,nats://host2:4222`. Throws `CONFIG`, which shows nothing that may be a secret. */
export function natsPlace(text: string): NatsPlace {
  const urls = text.split(',').map((part, n) => parse(n > 0 && !part.includes('://') ? `nats://${part}` : part))
  const isEncrypted = urls.some(({ protocol }) => protocol === 'tls:')
  const shown = urls.map(({ host }) => `${isEncrypted ? 'tls' : 'nats'}://${host}`).join(',')
  const users = new Set(urls.map(({ username, password }) => `${username}:${password}`).filter((user) => user !== ':'))
  if (users.size > 1) throw new SpillwayError('CONFIG', '--log must name one user: these urls have several.')
  const { username, password } = urls.find((url) => url.username !== '' || url.password !== '') ?? {}
  const place = { servers: urls.map(({ host }) => host), isEncrypted, shown }
  if (!username) return place
  const name = decodeURIComponent(username)
  return password ? { ...place, user: name, password: decodeURIComponent(password) } : { ...place, token: name }
}

function parse(text: string): URL & { host: string } {
  let url: URL
  try {
    url = new URL(text.trim())
    decodeURIComponent(url.username + url.password)
  } catch {
    throw wrong(text)
  }
  const { protocol, hostname, pathname, search, hash } = url
  const isPlain = (pathname === '' || pathname === '/') && search === '' && hash === ''
  if ((protocol !== 'nats:' && protocol !== 'tls:') || hostname === '' || !isPlain) throw wrong(text)
  if (url.port === '') url.port = defaultPort
  return url
}

function wrong(text: string): SpillwayError {
  // What is no url may have its password anywhere.
  const got = /[@?#]/.test(text) ? 'something else, not shown since it may hold a password' : JSON.stringify(text)
  return new SpillwayError('CONFIG', `--log must be ${needed}; got ${got}.`)
}
