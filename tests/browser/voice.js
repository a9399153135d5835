// A microphone for browsers that play no file as theirs: `getUserMedia` gives the file's sound.

export const Voice = {
  becomeMicrophone(url) {
    navigator.mediaDevices.getUserMedia = async () => {
      // An element keeps time by the clock, where an AudioContext would follow the speakers.
      const player = new Audio(url);
      player.loop = true;
      await new Promise((done, failed) => {
        Object.assign(player, { oncanplaythrough: done, onerror: failed });
      });
      await player.play();
      return player.mozCaptureStream();
    };
  },
};
