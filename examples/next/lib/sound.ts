let audio: AudioContext | undefined;
let isOn = false;

/** Browsers allow sound only after the user has interacted with the page: call this on a click. */
export function turnSound(on: boolean) {
  isOn = on;
  audio ??= new AudioContext();
  if (on) void audio.resume();
}

/** Plays a short tone if the sound is on: in one tab, if it is on in several. */
export function playSound() {
  const context = audio;
  if (!context || !isOn) return;
  void navigator.locks.request('sound', { ifAvailable: true }, async (lock) => {
    if (!lock) return;
    const tone = new OscillatorNode(context, { frequency: 880 });
    tone.connect(new GainNode(context, { gain: 0.1 })).connect(context.destination);
    tone.start();
    tone.stop(context.currentTime + 0.15);
    await new Promise((resolve) => { tone.onended = resolve; });
  });
}
