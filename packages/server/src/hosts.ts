import { SpillwayError } from 'spillway'
import { isLoopback } from './loopback.ts'

/** Names by which this machine alone is reached. */
const loopbackNames = ['localhost', '127.0.0.1', '[::1]']

/**
 * Under which names the server may be asked. A page that had its own name point to 127.0.0.1 would be of the same origin as
 * the server, but names itself in `Host`. [RFC 9110, 7.2; DNS rebinding]
 */
export class Hosts {
  /** `undefined`: any. */
  readonly #names: ReadonlySet<string> | undefined

  /** `names`: without a port; throws `CONFIG` for others. Default: where only this machine can reach `address`, its usual names; elsewhere any. */
  constructor(address: string, names: readonly string[] | undefined) {
    const wrong = names?.find((name) => !isHostName(name))
    if (wrong !== undefined) {
      const must = 'be names without a port, such as "events.example"'
      throw new SpillwayError('CONFIG', `hosts must ${must}, got ${JSON.stringify(wrong)}.`)
    }
    const bracketed = address.includes(':') ? `[${address}]` : address
    const own = isLoopback(address) ? [...loopbackNames, bracketed] : names && [bracketed]
    this.#names = own && new Set([...own, ...(names ?? [])].map((name) => name.toLowerCase()))
  }

  /** Whether a request with this header `Host` is meant for this server. */
  has(host: string | undefined): boolean {
    if (!this.#names) return true
    return host !== undefined && this.#names.has(host.toLowerCase().replace(/:\d*$/, ''))
  }
}

/** Whether `name` is one that a header `Host` may have before its port; addresses of IPv6 stand in brackets. */
export function isHostName(name: string): boolean {
  return name !== '' && !/[\s/]|:\d*$/.test(name)
}
