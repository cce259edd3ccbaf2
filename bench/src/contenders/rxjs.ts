import { ReplaySubject, Subject } from 'rxjs'
import type { BenchEvent, Contender, Stream } from '../contender.ts'

export const replaySubject: Contender = {
  name: 'RxJS ReplaySubject',
  kind: 'peer',
  from: 'rxjs',
  open: (capacity) => open(new ReplaySubject(capacity)),
}

export const subject: Contender = { name: 'RxJS Subject', kind: 'peer', from: 'rxjs', open: () => open(new Subject()) }

function open(subject: Subject<BenchEvent>): Stream {
  return {
    publish: (event) => subject.next(event),
    follow(readers, sink) {
      for (let n = 0; n < readers; n++) subject.subscribe((event) => sink.take(event))
    },
    replay: (sink) => subject.subscribe((event) => sink.take(event)).unsubscribe(),
  }
}
